// Short notices in a corner. Errors stay until dismissed; others disappear, unless the mouse is over them.

import type { App } from "../app";
import { byId, element } from "../dom";
import { text } from "../text";
import { icon } from "./icons";

const SHOWN_MS = 9000;
const MOST = 4;

export function mountToasts(app: App): void {
  const corner = byId("toasts");
  app.toast = (words, kind = "info") => {
    const twin = [...corner.children].find((one) => one.querySelector("p")?.textContent === words);
    twin?.remove();
    while (corner.children.length >= MOST) corner.firstElementChild!.remove();
    corner.append(toast(words, kind));
  };
}

function toast(words: string, kind: "info" | "error" | "success"): HTMLElement {
  const made = element("div", { class: `toast toast-${kind}` },
    icon(kind === "error" ? "unreadable" : kind === "success" ? "final" : "proposed"),
    element("p", {}, words),
    element("button", { class: "plain", "aria-label": text.panels.toast.dismiss, onclick: () => made.remove() },
      icon("close")));
  if (kind !== "error") goLater(made);
  return made;
}

function goLater(made: HTMLElement): void {
  let timer = window.setTimeout(() => made.remove(), SHOWN_MS);
  const stay = (): void => window.clearTimeout(timer);
  made.addEventListener("mouseenter", stay);
  made.addEventListener("focusin", stay);
  made.addEventListener("mouseleave", () => {
    stay();
    timer = window.setTimeout(() => made.remove(), SHOWN_MS / 2);
  });
}
