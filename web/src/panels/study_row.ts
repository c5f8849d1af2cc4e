// Row of the list of studies.

import type { StudyRow } from "../api";
import { element } from "../dom";
import { text } from "../text";
import { icon } from "./icons";

const words = text.panels.studies;

/** `picture`: address of the thumbnail. */
export function studyRow(study: StudyRow, picture: string | null): HTMLElement {
  const state = stateOf(study);
  // Name of the patient, and description of the study.
  const [first, ...rest] = study.name.split(" · ");
  const second = [...rest, study.detail].filter(Boolean).join(" · ");
  return element("div", {
    class: `study-row is-${study.state}`, role: "option", "data-id": study.id,
    title: [study.name, study.detail, study.working ? words.working(study.working) : "", state].filter(Boolean).join("\n"),
  },
    element("span", { class: "thumbnail" },
      study.state === "unreadable" ? icon("unreadable") : picture && element("img", { src: picture, alt: "" })),
    element("span", { class: "study-text" },
      element("span", { class: "study-name" }, first),
      second && element("span", { class: "study-detail quiet" }, second),
      element("span", { class: "study-state" },
        icon(study.working ? "person" : study.state),
        element("span", { class: "study-state-words" }, study.working ? words.working(study.working) : state),
        ...(study.working ? [] : labelsOf(study)))));
}

/** Return a key that changes when the row has to be drawn again. */
export function rowKey(study: StudyRow): string {
  return JSON.stringify(study);
}

function stateOf({ state, annotator, skip, problem }: StudyRow): string {
  if (state === "skipped") return skip?.reason ? words.skipped(skip.reason, skip.annotator) : words.skippedWithout;
  if (state === "unreadable" && problem) return words.unreadable(problem);
  const of = text.states[state];
  return annotator && annotator !== "unknown" && state !== "untouched" ? words.by(of, annotator) : of;
}

/** Return one sign for each of several labels. */
function labelsOf({ labels }: StudyRow): HTMLElement[] {
  const entries = Object.entries(labels);
  if (entries.length < 2 || entries.every(([, state]) => state === "none")) return [];
  const signs = entries.map(([label, state]) => element("span", {
    class: `label-sign is-${state}`, role: "img", "aria-label": words.label(label, text.labelStates[state]),
  }, icon(state)));
  return [element("span", { class: "label-signs" }, ...signs)];
}
