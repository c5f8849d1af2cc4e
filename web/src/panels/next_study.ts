// Next study, chosen by a strategy.

import type { App } from "../app";
import { element, replace } from "../dom";
import { text } from "../text";
import { recall, remember } from "./browser_memory";
import { report } from "./report";

const words = text.panels.next;

/** Return the button, and the choice of the strategy. */
export function mountNextStudy(app: App): HTMLElement {
  app.store.set({ strategy: recall("inextremis.strategy") ?? "" });
  const button = element("button", { class: "next", title: words.title, onclick: () => void app.do("next") },
    text.buttons.next, element("kbd", { "aria-hidden": "true" }, "N"));
  const chooser = element("select", { id: "strategy", "aria-label": words.chooser });

  const show = (): void => {
    const { project, strategy } = app.store.state;
    const strategies = Object.entries(project?.strategies ?? {});
    chooser.hidden = strategies.length < 2;
    button.disabled = strategies.length === 0;
    replace(chooser, ...strategies.map(([name, description]) =>
      element("option", { value: name, title: description }, words.names[name] ?? name)));
    chooser.value = project && strategy in project.strategies ? strategy : project?.default_strategy ?? "";
    chooser.title = project?.strategies[chooser.value] ?? "";
  };
  chooser.addEventListener("change", () => {
    remember("inextremis.strategy", chooser.value);
    app.store.set({ strategy: chooser.value });
  });
  app.store.watch(({ project, strategy }) => [project, strategy], show);
  app.store.watch(({ study, loading }) => !study && !loading, (isFree) => button.classList.toggle("primary", isFree));

  let asking = false;
  app.define("next", async () => {
    if (asking || button.disabled) return;
    asking = true;
    try {
      const { id } = await app.api.next(chooser.value, app.store.state.user ?? "");
      if (id === undefined) app.toast(text.said.noneLeft);
      else await app.open(id);
    } catch (error) {
      report(app, error);
    } finally {
      asking = false;
    }
  });
  return element("div", { class: "next-row" }, button, chooser);
}
