// Button that opens a menu. Escape, a choice, or a click elsewhere closes it.

import { element } from "../dom";
import { icon } from "./icons";

export function menu(label: string, shown: (Node | string)[], entries: (HTMLElement | false)[]): HTMLElement {
  const list = element("div", { class: "menu-list", hidden: true }, ...entries);
  const button = element("button", {
    class: "plain menu-button", "aria-label": label, "aria-expanded": "false",
    onclick: () => open(list.hidden),
  }, ...shown, icon("down"));
  const made = element("div", { class: "menu" }, button, list);

  const elsewhere = (event: Event): void => {
    if (!made.contains(event.target as Node)) open(false);
  };
  const open = (isOpen: boolean): void => {
    list.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) document.addEventListener("pointerdown", elsewhere);
    else document.removeEventListener("pointerdown", elsewhere);
  };
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || list.hidden) return;
    event.stopPropagation();
    open(false);
    button.focus();
  });
  made.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !made.contains(event.relatedTarget as Node)) open(false);
  });
  list.addEventListener("click", (event) => {
    if ((event.target as Element).closest("button, a")) open(false);
  });
  return made;
}
