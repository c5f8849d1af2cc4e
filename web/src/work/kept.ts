// Keep work that the server does not have yet in this browser.

import type { Voxel } from "../api";
import { fromRuns, runsOf } from "./label_map";
import type { Session } from "./session";

/** Characters for one study; a browser stores about five million in all. */
const MOST = 1_500_000;

interface Kept {
  /** Identifies the scan, so that points are not restored on another one of the same name. */
  shape: number[];
  affine: number[][];
  labels: Record<string, { foreground: Voxel[]; background: Voxel[] }>;
  drawn: { labels: string[]; runs: number[] } | null;
}

function nameOf(session: Session): string {
  return `inextremis.kept:${session.app.store.state.project?.title ?? ""}:${session.study.id}`;
}

/** Store the work; remove it if the server has everything. */
export function keep(session: Session): void {
  const unsaved = session.labels.filter((label) => session.isUnsaved(label));
  const name = nameOf(session);
  try {
    if (!unsaved.length) {
      localStorage.removeItem(name);
      return;
    }
    const kept: Kept = {
      shape: [...session.map.shape], affine: session.scan.affine, labels: {}, drawn: null,
    };
    for (const label of unsaved) {
      const { foreground, background } = session.work(label);
      kept.labels[label] = { foreground, background };
    }
    const drawn = unsaved.filter((label) => session.work(label).source === "drawn");
    if (drawn.length) kept.drawn = { labels: drawn, runs: runsOf(session.map.values) };
    const words = JSON.stringify(kept);
    localStorage.setItem(name, words.length <= MOST ? words : JSON.stringify({ ...kept, drawn: null }));
  } catch {
    // Storage is forbidden or full.
  }
}

/** Restore the work on this study; returns whether there was any. */
export function restoreKept(session: Session): boolean {
  const kept = read(nameOf(session));
  if (!kept || !isSame(kept.shape, session.map.shape) || !isSame(kept.affine, session.scan.affine)) return false;
  const drawing = kept.drawn && fromRuns(kept.drawn.runs, session.map.values.length);
  let any = false;
  for (const label of session.labels) {
    const clicks = kept.labels[label];
    if (!clicks) continue;
    const isDrawn = Boolean(drawing && kept.drawn!.labels.includes(label));
    const { foreground, background } = clicks;
    session.update(label, { foreground, background, ...(isDrawn ? { source: "drawn" as const } : {}) });
    if (drawing && isDrawn) session.map.take(drawing, session.valueOf(label));
    any = true;
  }
  session.repaint();
  return any;
}

const isSame = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

function read(name: string): Kept | null {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(name) ?? "null");
    return isKept(kept) ? kept : null;
  } catch {
    return null;
  }
}

function isKept(kept: unknown): kept is Kept {
  const { shape, labels } = (kept ?? {}) as Partial<Kept>;
  return Array.isArray(shape) && typeof labels === "object" && labels !== null &&
    Object.values(labels).every((clicks) => Array.isArray(clicks.foreground) && Array.isArray(clicks.background));
}
