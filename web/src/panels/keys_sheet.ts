// Sheet of keys, made from the table of keys.

import type { App } from "../app";
import { element } from "../dom";
import { KEYS, type Key } from "../keys";
import { text } from "../text";
import { showDialog } from "./dialogs";

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);

export function mountKeysSheet(app: App): void {
  app.define("help", () => {
    const sheet = showDialog(text.keys.heading, "keys-sheet", (close) => [
      element("button", { class: "dialog-close", onclick: close, autofocus: true }, text.buttons.close),
      element("div", { class: "keys-groups", tabindex: 0, role: "group", "aria-label": text.keys.heading }, ...groups()),
    ]);
    sheet.addEventListener("keydown", (event) => {
      if (event.key === "?") sheet.close();
    });
    sheet.addEventListener("click", (event) => {
      if (event.target === sheet) sheet.close();
    });
  });
}

function groups(): HTMLElement[] {
  const ofKeys = Object.entries(text.keys.groups).map(([group, heading]) => {
    const listed = KEYS.filter((key) => key.group === group && key.does);
    return section(heading, listed.map((key) => [key.keys.slice(0, 2).map((one) => nameOf(key, one)), key.does]));
  });
  const alone = (rows: [string, string][]): [string[], string][] => rows.map(([way, does]) => [[way], does]);
  return [
    ...ofKeys,
    section(text.panels.sheet.list, alone(text.panels.sheet.listRows)),
    section(text.keys.mouse, alone(text.keys.mouseRows)),
  ];
}

function section(heading: string, rows: [string[], string][]): HTMLElement {
  return element("section", {},
    element("h3", {}, heading),
    element("dl", {}, ...rows.map(([names, does]) => element("div", {},
      element("dt", {}, ...names.map((name) => element("kbd", {}, name))),
      element("dd", {}, does)))));
}

/** Return "mod+shift+z" as printed on the keyboard. */
function nameOf(key: Key, written: string): string {
  const { names, command, labels, arrows } = text.panels.sheet;
  if (key.action === "label") return labels;
  if (key.action === "moveCrosshair") return `${names.shift} + ${arrows}`;
  const parts = written === "+" ? ["+"] : written.split("+");
  return parts
    .map((part) => (part === "mod" && IS_MAC ? command : names[part] ?? part.toUpperCase()))
    .join(" + ");
}
