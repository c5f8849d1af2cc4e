// Light or dark theme: that of the system, until the user chooses.

import type { App } from "../app";
import { element, replace } from "../dom";
import { text } from "../text";
import { recall, remember } from "./browser_memory";
import { icon } from "./icons";

type Theme = "light" | "dark";

/** Return the button that changes the theme. */
export function mountTheme(app: App): HTMLButtonElement {
  const button = element("button", { class: "plain symbol", onclick: () => void app.do("theme") });
  const system = window.matchMedia("(prefers-color-scheme: light)");
  const show = (): void => {
    const theme = chosen() ?? (system.matches ? "light" : "dark");
    document.documentElement.dataset.theme = theme;
    const words = theme === "dark" ? text.panels.topbar.toLight : text.panels.topbar.toDark;
    button.title = words;
    button.setAttribute("aria-label", words);
    replace(button, icon(theme === "dark" ? "sun" : "moon"));
  };
  app.define("theme", () => {
    remember("inextremis.theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    show();
  });
  system.addEventListener("change", show);
  show();
  return button;
}

function chosen(): Theme | null {
  const kept = recall("inextremis.theme");
  return kept === "light" || kept === "dark" ? kept : null;
}
