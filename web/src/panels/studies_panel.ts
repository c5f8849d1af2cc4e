// Left column: next study, search, filter, list.

import type { StudyState } from "../api";
import type { App } from "../app";
import { byId, element, replace } from "../dom";
import { text } from "../text";
import { icon } from "./icons";
import { mountNextStudy } from "./next_study";
import { filtered, isOf, type Filter } from "./study_filter";
import { StudyList } from "./study_list";

const words = text.panels.studies;
const STATES: StudyState[] = ["untouched", "clicked", "proposed", "final", "skipped", "unreadable"];

export function mountStudies(app: App): void {
  const list = new StudyList(app);
  const search = element("input", {
    id: "study-search", type: "search", placeholder: `${words.search}  /`, "aria-label": words.searchLabel,
    autocomplete: "off", spellcheck: "false",
  });
  const filter = element("select", { id: "study-filter", "aria-label": words.filter });
  const shown = element("p", { class: "shown quiet", role: "status" });
  const empty = element("div", { class: "no-study quiet", hidden: true });

  const show = (): void => {
    const { studies, project } = app.store.state;
    const found = filtered(studies, filter.value as Filter, search.value);
    list.show(found);
    shown.textContent = words.shown(found.length, studies.length);
    empty.hidden = found.length > 0 || !project;
    replace(empty, element("p", {}, studies.length ? words.noMatch : words.none),
      studies.length > 0 && element("button", { onclick: clear }, words.clear));
  };
  const clear = (): void => {
    search.value = "";
    filter.value = "all";
    show();
    search.focus();
  };

  search.addEventListener("input", show);
  filter.addEventListener("change", show);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      event.preventDefault();
      search.value = "";
      show();
    } else if (event.key === "Escape") byId("stage").focus();
    else if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      if (list.position < 0 || event.key === "Enter") list.moveTo(0);
      if (event.key === "Enter" && list.shown[0]) void app.open(list.shown[0].id);
      else list.element.focus();
    }
  });
  app.define("search", () => {
    search.focus();
    search.select();
  });
  defineSteps(app, list);

  replace(byId("studies"),
    element("div", { class: "studies-head" },
      element("h2", {}, words.heading),
      shown,
      mountNextStudy(app),
      element("div", { class: "search-row" }, element("span", { class: "search" }, icon("search"), search), filter)),
    list.element,
    empty);
  app.store.watch((state) => state.studies, () => {
    fillFilter(app, filter);
    show();
  });
}

/** Return the states that occur, with their numbers of studies. */
function fillFilter(app: App, filter: HTMLSelectElement): void {
  const { studies } = app.store.state;
  const chosen = filter.value || "all";
  const count = (of: Filter): number => studies.filter((study) => isOf(study, of)).length;
  const states = STATES.filter((state) => state === chosen || count(state) > 0);
  replace(filter,
    element("option", { value: "all" }, words.ofState(words.all, studies.length)),
    element("option", { value: "open" }, words.ofState(words.open, count("open"))),
    ...states.map((state) => element("option", { value: state }, words.ofState(text.states[state], count(state)))));
  filter.value = chosen;
}

/** Return the readable studies before and after the open one, among the shown ones. */
function defineSteps(app: App, list: StudyList): void {
  const step = (way: 1 | -1) => (): void => {
    const { study, loading } = app.store.state;
    const open = loading?.id ?? study?.id;
    const readable = list.shown.filter(({ id, state }) => state !== "unreadable" || id === open);
    const at = readable.findIndex(({ id }) => id === open);
    const next = at < 0 ? readable[way > 0 ? 0 : readable.length - 1] : readable[at + way];
    if (next) void app.open(next.id);
  };
  app.define("nextStudy", step(1));
  app.define("previousStudy", step(-1));
}
