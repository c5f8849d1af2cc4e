// What the page knows, in one store that its parts watch.

import type { LabelState, Me, Models, Project, Study, StudyRow, Training, Voxel } from "./api";

/** Where the shown mask of a label comes from. */
type MaskSource = "none" | "clicks" | "drawn" | "proposal" | "final";

/** What is done on one label of the open study. */
export interface LabelWork {
  /** Clicks that belong to the structure, voxel indices of the file, in the order in which they were placed. */
  foreground: Voxel[];
  background: Voxel[];
  /** What the server holds. */
  stored: LabelState;
  source: MaskSource;
  /** Of the model that made the shown mask, where one did. */
  version: number | null;
  /** Checksum of that model. */
  sha256: string | null;
  /** Did other labels keep voxels that the server's mask of this one has? */
  overlaps: boolean;
  /** The server's sentence about these clicks. */
  refusal: string | null;
  busy: boolean;
}

type Tool = "points" | "brush" | "eraser";
export type Plane = "axial" | "coronal" | "sagittal";

export interface State {
  me: Me | null;
  /** Of the login, or typed once; null where nobody is known yet. */
  user: string | null;
  /** Does the server answer? */
  reached: boolean;
  /** Has the login ended? */
  expired: boolean;
  training: Training | null;
  models: Models | null;
  project: Project | null;
  studies: StudyRow[];
  /** The open study; null while none is, or another is being loaded. */
  study: Study | null;
  loading: { id: string; name: string; loaded: number; bytes: number } | null;
  /** Why the study could not be opened. */
  failure: { id: string; sentence: string } | null;
  activeLabel: string;
  /** Is the automatic mask being made, or a decision on its way? */
  proposing: boolean;
  deciding: boolean;
  work: Record<string, LabelWork>;
  /** Counts the changes of the label map, which is kept in work/label_map.ts. */
  maskRevision: number;
  /** Of "next study"; "" takes the default of the project. */
  strategy: string;
  tool: Tool;
  brush: { radius_mm: number; ball: boolean };
  view: {
    /** null: all three. */
    alone: Plane | null;
    radiological: boolean;
    outline: boolean;
    /** Of the filled masks, 0 to 1. */
    opacity: number;
    /** Shown from (black) to (white), values of the scan. */
    window: [number, number];
    showMasks: boolean;
    showPoints: boolean;
    crosshair: boolean;
  };
  canUndo: boolean;
  canRedo: boolean;
  /** The line at the bottom; read out by screen readers. */
  status: { text: string; kind: "info" | "error" | "success" };
}

export const initialState: State = {
  me: null,
  user: null,
  reached: true,
  expired: false,
  training: null,
  models: null,
  project: null,
  studies: [],
  study: null,
  loading: null,
  failure: null,
  activeLabel: "",
  proposing: false,
  deciding: false,
  work: {},
  maskRevision: 0,
  strategy: "",
  tool: "points",
  brush: { radius_mm: 3, ball: false },
  view: {
    alone: null,
    radiological: true,
    outline: true,
    opacity: 0.3,
    window: [0, 1],
    showMasks: true,
    showPoints: true,
    crosshair: true,
  },
  canUndo: false,
  canRedo: false,
  status: { text: "", kind: "info" },
};

export class Store<S extends object> {
  private watchers = new Set<() => void>();

  constructor(private current: S) {}

  get state(): Readonly<S> {
    return this.current;
  }

  set(change: Partial<S>): void {
    this.current = { ...this.current, ...change };
    for (const told of [...this.watchers]) told();
  }

  /**
   * Calls `listener` now and whenever what `select` picks becomes another value (or another element of an array that
   * it returns). Returns the function that ends this.
   */
  watch<T>(select: (state: Readonly<S>) => T, listener: (value: T) => void): () => void {
    let last = select(this.current);
    const told = (): void => {
      const now = select(this.current);
      if (same(last, now)) return;
      last = now;
      listener(now);
    };
    this.watchers.add(told);
    listener(last);
    return () => this.watchers.delete(told);
  }
}

function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((one, n) => Object.is(one, b[n]));
  return Object.is(a, b);
}
