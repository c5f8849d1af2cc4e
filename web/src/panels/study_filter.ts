// Filter the list of studies.

import type { StudyRow, StudyState } from "../api";

export type Filter = "all" | "open" | StudyState;

/** Return the studies of a state that contain all search words. */
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
