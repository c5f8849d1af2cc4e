// Top bar: the project with its progress, keys, theme, user.

import type { Project, StudyState } from "../api";
import type { App } from "../app";
import { byId, element, replace } from "../dom";
import { text } from "../text";
import { icon } from "./icons";
import { mountTheme } from "./theme";
import { mountUser } from "./user";

const words = text.panels.progress;
const ORDER: StudyState[] = ["final", "proposed", "clicked", "skipped", "unreadable", "untouched"];

export function mountTopbar(app: App): void {
  const project = byId("topbar-project");
  app.store.watch((state) => state.project, (of) => replace(project, ...(of ? shownProject(of) : [])));

  const user = mountUser(app);
  const help = element("button", {
    class: "plain symbol", title: text.panels.topbar.help, "aria-label": text.panels.topbar.help,
    onclick: () => void app.do("help"),
  }, icon("keyboard"));
  const reviews = element("a", { class: "to-reviews", href: "/review", hidden: true }, text.panels.user.readings);
  app.store.watch((state) => state.me, (me) => (reviews.hidden = !me?.may.review));
  replace(byId("topbar-end"), reviews, help, mountTheme(app), user);

  app.store.watch((state) => state.study?.name, (name) => {
    document.title = name ? `${name} · ${text.title}` : text.title;
  });
}

function shownProject(project: Project): HTMLElement[] {
  const { counts } = project;
  const present = ORDER.filter((state) => counts[state] > 0);
  const parts = present.map((state) => words.part(counts[state], text.states[state]));
  const bar = element("div", { class: "progress-bar", role: "img", "aria-label": words.title(parts), title: parts.join("\n") });
  for (const state of present) {
    const part = element("span", { class: `part-${state}` });
    part.style.flexGrow = String(counts[state]);
    bar.append(part);
  }
  return [
    element("span", { class: "project-title", title: project.title }, project.title),
    bar,
    element("span", { class: "project-final quiet" }, words.final(counts.final, counts.total)),
  ];
}
