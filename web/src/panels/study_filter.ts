// Which studies of the list are shown.

import type { StudyRow, StudyState } from "../api";

export type Filter = "all" | "open" | StudyState;

/** Those of a state that hold all words that are searched for. */
export function filtered(studies: readonly StudyRow[], filter: Filter, search: string): StudyRow[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return studies.filter((study) => isOf(study, filter) && words.every((word) => textOf(study).includes(word)));
}

export function isOf(study: StudyRow, filter: Filter): boolean {
  if (filter === "all") return true;
  if (filter === "open") return ["untouched", "clicked", "proposed"].includes(study.state);
  return study.state === filter;
}

function textOf({ name, id, detail, annotator, working, skip, problem }: StudyRow): string {
  return [name, id, detail, annotator, working, skip?.reason, problem].filter(Boolean).join("\n").toLowerCase();
}
