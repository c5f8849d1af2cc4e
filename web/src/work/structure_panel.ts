// Panel of the open study: labels, extreme points of the active one, its mask, and buttons.

import type { Extreme } from "../api";
import type { ActionName, App } from "../app";
import { byId, element, keepingFocus, replace } from "../dom";
import type { LabelWork, State } from "../state";
import { text } from "../text";
import { colourClass } from "../viewer/colours";
import { EXTREMES, findExtremes } from "./extremes";
import type { Session } from "./session";
import { withKey } from "./toolbar";
import { boxOf } from "./voxels";

export function mountStructure(app: App, session: () => Session | null): void {
  const { store } = app;
  const panel = byId("structure");
  const labels = element("ul", { class: "labels", "aria-label": text.structure.labels });
  const extremes = element("div", { class: "extremes" });
  const hint = element("p", { class: "hint" });
  const mask = element("div", { class: "mask" });
  const actions = element("div", { class: "actions" });
  const name = element("h2", {});
  const skipped = element("p", { class: "skipped" });
  replace(panel, name, skipped, labels, extremes, hint, mask, actions);

  store.watch(
    ({ study, work, activeLabel, maskRevision, proposing, deciding, project, me }) => [
      study, work, activeLabel, maskRevision, proposing, deciding, project, me,
    ],
    () => {
      const { state } = store;
      const open = session();
      panel.hidden = !state.study || !open;
      if (!state.study || !open) return;
      name.textContent = state.study.name;
      const { skip } = state.study;
      skipped.hidden = !skip;
      if (skip) skipped.textContent = text.structure.skipped(skip.annotator, skip.reason);
      keepingFocus(panel, () => {
        replace(labels, ...open.labels.map((label) => labelRow(app, open, label)));
        const work = open.work(state.activeLabel);
        showExtremes(open, work, extremes);
        showHint(open, work, state, hint);
        showMask(open, work, state, mask);
        replace(actions, ...buttons(app, open, work, state));
      });
    },
  );
}

function labelRow(app: App, session: Session, label: string): HTMLElement {
  const value = session.valueOf(label);
  const { stored, source, busy } = session.work(label);
  const isActive = label === app.store.state.activeLabel;
  const state = session.isUnsaved(label) && stored === "none" ? text.structure.begun : text.labelStates[stored];
  return element("li", {},
    element("button", {
      type: "button", class: `label ${colourClass(value)} ${stored} ${source === "proposal" ? "proposal" : ""}`,
      "data-focus": `label ${label}`, "aria-pressed": String(isActive),
      title: text.structure.chooseLabel(label, value),
      onclick: () => app.store.set({ activeLabel: label }),
    },
    element("span", { class: "swatch", "aria-hidden": "true" }),
    element("span", { class: "words" }, label),
    element("span", { class: "quiet" }, busy ? "…" : source === "proposal" ? text.states.proposed : state)));
}

function showExtremes(session: Session, work: LabelWork, into: HTMLElement): void {
  const found = findExtremes(session.scan, work.foreground);
  const count = Object.keys(found).length;
  const row = (extreme: Extreme): HTMLElement => {
    const index = found[extreme];
    const is = index !== undefined;
    return element("li", { class: is ? "found" : "" },
      element("button", {
        type: "button", class: "plain", disabled: !is, "data-focus": `extreme ${extreme}`,
        title: is ? text.structure.goTo(text.extremes[extreme]) : text.extremeHints[extreme],
        onclick: () => is && session.viewer.moveTo(work.foreground[index]!),
      },
      element("span", { class: "tick", "aria-hidden": "true" }, is ? "✓" : ""),
      element("span", {}, text.extremes[extreme]),
      element("span", { class: "visually-hidden" }, is ? text.structure.isFound : text.structure.isMissing)));
  };
  // Opposite extreme points side by side, as in the radiological view.
  replace(into,
    element("div", { class: "heading" },
      element("h3", {}, text.structure.extremes),
      element("span", { class: count === 6 ? "success" : "quiet" }, text.structure.found(count))),
    element("ul", {}, ...EXTREMES.map(row)));
}

function showHint(session: Session, work: LabelWork, state: Readonly<State>, into: HTMLElement): void {
  const { structure: t } = text;
  into.className = work.refusal ? "hint error" : "hint";
  if (work.refusal) into.setAttribute("role", "alert");
  else into.removeAttribute("role");
  if (work.refusal) into.textContent = work.refusal;
  else if (work.busy) into.textContent = t.computing;
  else if (state.proposing && !work.foreground.length) into.textContent = t.proposing;
  else if (work.source === "proposal") into.textContent = t.proposalHint;
  else if (work.stored === "absent" && !work.foreground.length) into.textContent = t.absentHint;
  else if (work.source === "final") into.textContent = t.finalHint;
  else if (work.source === "drawn") into.textContent = t.drawnHint;
  else into.textContent = whatToClick(session, work);
}

function whatToClick(session: Session, { foreground }: LabelWork): string {
  const { structure: t } = text;
  if (foreground.length === 0) return t.firstHint;
  if (foreground.length >= 6) return t.sixHint;
  const found = findExtremes(session.scan, foreground);
  const [one, ...more] = EXTREMES.filter((extreme) => found[extreme] === undefined);
  if (more.length) return t.missing([one!, ...more].map((extreme) => text.extremes[extreme]));
  return t.oneMissing(text.extremes[one!], text.extremeHints[one!]);
}

function showMask(session: Session, work: LabelWork, state: Readonly<State>, into: HTMLElement): void {
  const rows: [string, string][] = [];
  const box = boxOf(work.foreground);
  if (box && work.foreground.length > 1)
    rows.push([
      text.structure.boxSize,
      text.structure.size(box.low.map((low, axis) => (box.high[axis]! - low + 1) * session.scan.spacing_mm[axis]!)),
    ]);
  const millilitres = session.millilitres(state.activeLabel);
  if (millilitres > 0) rows.push([sourceText(work), text.structure.volume(millilitres)]);
  if (work.foreground.length + work.background.length)
    rows.push([text.structure.pointsHeading, text.structure.points(work.foreground.length, work.background.length)]);
  replace(into,
    rows.length ? element("dl", {}, ...rows.map(([term, words]) => element("div", {}, element("dt", {}, term), element("dd", {}, words)))) : null,
    session.isUnsaved(state.activeLabel) && !work.busy ? element("p", { class: "quiet kept" }, text.structure.kept) : null);
}

function sourceText(work: LabelWork): string {
  return work.source === "proposal" ? text.structure.proposalOf(work.version) : text.structure.source[work.source];
}

function buttons(app: App, session: Session, work: LabelWork, state: Readonly<State>): (HTMLElement | null)[] {
  const { buttons: b, keys: k } = text;
  const may = Boolean(state.me?.may.store) && !state.deciding;
  const button = (action: ActionName, words: string, title: string, enabled: boolean, kind = ""): HTMLElement =>
    element("button", {
      type: "button", class: kind, disabled: !enabled, title: withKey(title, action), "data-focus": `do ${action}`,
      onclick: () => void app.do(action),
    }, words);
  const isOpen = work.source !== "none" && work.source !== "final";
  const hasFinal = Boolean(session.study.final) || session.labels.some((label) => session.work(label).stored === "final");
  return [
    button("accept", b.accept, b.acceptTitle, may && isOpen && !work.busy, "primary wide"),
    work.source === "proposal" ? button("reject", b.reject, k.reject, may) : null,
    state.project?.models.automatic && work.source === "none" && !state.proposing
      ? button("propose", b.propose, k.propose, true)
      : null,
    button("absent", b.absent, k.absent, may && work.stored !== "absent"),
    button("skip", state.study?.skip ? b.unskip : b.skip, state.study?.skip ? b.unskip : k.skip, may),
    button("clear", b.clear, text.buttons.clearTitle, Boolean(work.foreground.length + work.background.length) || isOpen),
    hasFinal ? button("takeBack", b.takeBack, k.takeBack, may) : null,
  ];
}
