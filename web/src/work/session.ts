// Open study: clicks, masks and their history.

import type { Study, Voxel } from "../api";
import type { App } from "../app";
import type { LabelWork } from "../state";
import type { Scan } from "../viewer/scan";
import type { Viewer } from "../viewer/viewer";
import { History } from "./history";
import { LabelMap, type Change } from "./label_map";
import { keyOf } from "./voxels";

const UNTOUCHED: LabelWork = {
  foreground: [],
  background: [],
  stored: "none",
  source: "none",
  version: null,
  sha256: null,
  overlaps: false,
  refusal: null,
  busy: false,
};

export class Session {
  readonly map: LabelMap;
  readonly history = new History();
  /** Clicks stored on the server, by label, as text. */
  readonly sent = new Map<string, string>();
  /** Aborts requests when the study is closed. */
  readonly closed = new AbortController();
  /** Point under the mouse. */
  hovered: { label: string; kind: "in" | "out"; index: number } | null = null;

  constructor(
    readonly app: App,
    readonly viewer: Viewer,
    readonly study: Study,
    readonly scan: Scan,
    readonly labels: string[],
  ) {
    this.map = new LabelMap(study.geometry.shape);
    const work = Object.fromEntries(labels.map((label) => [label, { ...UNTOUCHED, ...this.storedOf(label) }]));
    for (const label of labels) if (work[label]!.foreground.length) this.sent.set(label, keyOfWork(work[label]!));
    app.store.set({ work, canUndo: false, canRedo: false });
  }

  private storedOf(label: string): Partial<LabelWork> {
    const stored = this.study.labels[label];
    return {
      stored: stored?.state ?? "none",
      foreground: stored?.clicks?.foreground_voxel ?? [],
      background: stored?.clicks?.background_voxel ?? [],
    };
  }

  get active(): string {
    return this.app.store.state.activeLabel;
  }

  get user(): string {
    return this.app.store.state.user ?? "";
  }

  /** Return the value of a label in the label map. */
  valueOf(label: string): number {
    return this.labels.indexOf(label) + 1;
  }

  work(label: string): LabelWork {
    return this.app.store.state.work[label] ?? UNTOUCHED;
  }

  millilitres(label: string): number {
    const mm3 = this.scan.spacing_mm.reduce((product, mm) => product * mm, 1);
    return (this.map.count(this.valueOf(label)) * mm3) / 1000;
  }

  /** Tell whether clicks or a drawing are not stored on the server. */
  isUnsaved(label: string): boolean {
    const work = this.work(label);
    const clicked = work.foreground.length + work.background.length > 0;
    return work.source === "drawn" || (clicked && this.sent.get(label) !== keyOfWork(work));
  }

  /** Change the work on a label without a history entry. */
  update(label: string, change: Partial<LabelWork>): void {
    const { work } = this.app.store.state;
    this.app.store.set({ work: { ...work, [label]: { ...this.work(label), ...change } } });
  }

  /** Draw the changed label map. */
  repaint(): void {
    this.app.store.set({ maskRevision: this.app.store.state.maskRevision + 1 });
  }

  /** Record a step that can be undone; its `changes` of the label map are applied already. */
  edit(label: string, change: Partial<LabelWork>, changes: Change[] = []): void {
    const before = this.work(label);
    this.update(label, change);
    this.history.push({ label, before, after: this.work(label), changes });
    this.tellHistory();
    if (changes.length) this.repaint();
  }

  /** Add a result to the last step, so that it is undone with it. */
  amend(label: string, change: Partial<LabelWork>, changes: Change[]): void {
    const { last } = this.history;
    const work = this.work(label);
    if (changes.every(({ voxels }) => !voxels.length) && (!last || work.source === change.source)) {
      this.update(label, change);
      return;
    }
    if (last?.label !== label || keyOfWork(last.after) !== keyOfWork(work) || last.after.source === "drawn") {
      this.edit(label, change, changes);
      return;
    }
    this.update(label, change);
    last.after = this.work(label);
    last.changes.push(...changes);
    this.repaint();
  }

  undo(): boolean {
    const entry = this.history.undo();
    if (!entry) return false;
    for (const change of [...entry.changes].reverse()) this.map.apply(change, true);
    this.restore(entry.label, entry.before);
    return true;
  }

  redo(): boolean {
    const entry = this.history.redo();
    if (!entry) return false;
    for (const change of entry.changes) this.map.apply(change);
    this.restore(entry.label, entry.after);
    return true;
  }

  /** Work stored on the server is not undone. */
  private restore(label: string, work: LabelWork): void {
    const { stored } = this.work(label);
    this.update(label, { ...work, stored, busy: false, refusal: null });
    this.app.store.set({ activeLabel: label });
    this.tellHistory();
    this.repaint();
  }

  private tellHistory(): void {
    this.app.store.set({ canUndo: this.history.canUndo, canRedo: this.history.canRedo });
  }
}

export function keyOfWork({ foreground, background }: { foreground: Voxel[]; background: Voxel[] }): string {
  return keyOf(foreground, background);
}
