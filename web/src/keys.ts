// Table of keys: their actions, and their texts on the sheet under "?".

import type { ActionName, App } from "./app";
import { text } from "./text";

export interface Key {
  /** KeyboardEvent.key in lower case; "mod+" means Ctrl, or Command on a Mac. */
  keys: string[];
  action: ActionName;
  argument?: string;
  group: keyof typeof text.keys.groups;
  /** Text on the sheet; without it the key is not listed. */
  does: string;
}

const k = text.keys;

export const KEYS: Key[] = [
  { keys: ["a"], action: "accept", group: "study", does: k.accept },
  { keys: ["n"], action: "next", group: "study", does: k.next },
  { keys: ["pagedown"], action: "nextStudy", group: "study", does: k.nextStudy },
  { keys: ["pageup"], action: "previousStudy", group: "study", does: k.previousStudy },
  { keys: ["x"], action: "absent", group: "study", does: k.absent },
  { keys: ["s"], action: "skip", group: "study", does: k.skip },
  { keys: ["p"], action: "propose", group: "study", does: k.propose },
  { keys: ["j"], action: "reject", group: "study", does: k.reject },
  { keys: ["u"], action: "takeBack", group: "study", does: k.takeBack },
  { keys: ["mod+z"], action: "undo", group: "edit", does: k.undo },
  { keys: ["mod+y", "mod+shift+z"], action: "redo", group: "edit", does: k.redo },
  { keys: ["delete", "backspace"], action: "deletePoint", group: "edit", does: k.deletePoint },
  { keys: ["enter"], action: "place", group: "edit", does: k.place },
  { keys: ["shift+enter"], action: "placeOut", group: "edit", does: k.placeOut },
  { keys: ["q"], action: "points", group: "edit", does: k.points },
  { keys: ["b"], action: "brush", group: "edit", does: k.brush },
  { keys: ["e"], action: "eraser", group: "edit", does: k.eraser },
  { keys: ["["], action: "brushSmaller", group: "edit", does: k.brushSmaller },
  { keys: ["]"], action: "brushLarger", group: "edit", does: k.brushLarger },
  { keys: ["d"], action: "ball", group: "edit", does: k.ball },
  { keys: ["g"], action: "fillBetween", group: "edit", does: k.fillBetween },
  { keys: ["l"], action: "nextLabel", group: "edit", does: k.nextLabel },
  ...Array.from({ length: 9 }, (_, n): Key => ({
    keys: [String(n + 1)], action: "label", argument: String(n + 1), group: "edit", does: n ? "" : k.label,
  })),
  { keys: ["arrowup"], action: "sliceUp", group: "view", does: k.sliceUp },
  { keys: ["arrowdown"], action: "sliceDown", group: "view", does: k.sliceDown },
  ...["left", "right", "up", "down"].map((way, n): Key => ({
    keys: [`shift+arrow${way}`], action: "moveCrosshair", argument: way, group: "view", does: n ? "" : k.moveCrosshair,
  })),
  { keys: ["v"], action: "onePlane", group: "view", does: k.onePlane },
  { keys: ["+", "="], action: "zoomIn", group: "view", does: k.zoomIn },
  { keys: ["-"], action: "zoomOut", group: "view", does: k.zoomOut },
  { keys: ["w"], action: "windowPreset", group: "view", does: k.windowPreset },
  { keys: ["f"], action: "fit", group: "view", does: k.fit },
  { keys: ["c"], action: "centre", group: "view", does: k.centre },
  { keys: ["m"], action: "masks", group: "view", does: k.masks },
  { keys: ["i"], action: "showPoints", group: "view", does: k.showPoints },
  { keys: ["o"], action: "outline", group: "view", does: k.outline },
  { keys: ["h"], action: "crosshair", group: "view", does: k.crosshair },
  { keys: ["r"], action: "radiological", group: "view", does: k.radiological },
  { keys: ["?"], action: "help", group: "page", does: k.help },
  { keys: ["/"], action: "search", group: "page", does: k.search },
  { keys: ["t"], action: "theme", group: "page", does: k.theme },
];

const NAMES: Record<string, string> = {
  pagedown: "Page down", pageup: "Page up", arrowup: "↑", arrowdown: "↓", delete: "Delete", tab: "Tab", enter: "Enter",
};

/** Return the first key of an action as text; "" if it has none. */
export function keyFor(action: ActionName): string {
  const key = KEYS.find((one) => one.action === action)?.keys[0];
  return key ? written(key) : "";
}

/** Return a key of the table as text: "mod+z" is Ctrl + Z. */
export function written(key: string): string {
  return key
    .split(/(?<=.)\+/)
    .map((part) => ({ mod: "Ctrl", shift: "Shift" })[part] ?? NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .join(" + ");
}

/** Run actions on keys, except while text is typed or a dialog is open. */
export function listenToKeys(app: App): void {
  window.addEventListener("keydown", (event) => {
    if (isTyping(event) || document.querySelector("dialog[open]")) return;
    const found = KEYS.find((key) => key.keys.includes(nameOf(event)));
    if (!found || (needsFocus(found) && !isOverViewer(event))) return;
    event.preventDefault();
    void app.do(found.action, found.argument);
  });
}

function nameOf(event: KeyboardEvent): string {
  const mod = event.ctrlKey || event.metaKey ? "mod+" : "";
  const shift = event.shiftKey && (mod || event.key.length > 1) ? "shift+" : "";
  if (event.altKey) return "";
  return mod + shift + event.key.toLowerCase();
}

function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as HTMLElement | null;
  return Boolean(target?.closest("input:not([type=range]):not([type=checkbox]), textarea, select, [contenteditable]"));
}

/** Outside the scan, Enter presses the focused button. */
function needsFocus(key: Key): boolean {
  return ["enter", "shift+enter"].includes(key.keys[0]!);
}

/** Tell whether the scan has the focus. */
function isOverViewer(event: KeyboardEvent): boolean {
  return Boolean((event.target as HTMLElement | null)?.closest("#stage"));
}
