// State of the page, in one store that its parts watch.

import type { LabelState, Me, Models, Project, Study, StudyRow, Training, Voxel } from "./api";

/** Source of the shown mask of a label. */
type MaskSource = "none" | "clicks" | "drawn" | "proposal" | "final";

/** Work on one label of the open study. */
export interface LabelWork {
  /** Clicks in the structure, voxel indices of the file, in the order of placing. */
  foreground: Voxel[];
  background: Voxel[];
  /** State on the server. */
  stored: LabelState;
  source: MaskSource;
  /** Version of the model that made the shown mask, if one did. */
  version: number | null;
  /** Checksum of that model. */
  sha256: string | null;
  /** Whether other labels kept voxels of the server's mask of this one. */
  overlaps: boolean;
  /** The server's refusal of these clicks. */
  refusal: string | null;
  busy: boolean;
}

type Tool = "points" | "brush" | "eraser";
export type Plane = "axial" | "coronal" | "sagittal";

export interface State {
  me: Me | null;
  /** Name of the login, or typed once; null if unknown. */
  user: string | null;
  /** Whether the server answers. */
  reached: boolean;
  /** Whether the login has expired. */
  expired: boolean;
  training: Training | null;
  models: Models | null;
  project: Project | null;
  studies: StudyRow[];
  /** Open study; null if there is none, or another one is being loaded. */
  study: Study | null;
  loading: { id: string; name: string; loaded: number; bytes: number } | null;
  /** Reason why the study could not be opened. */
  failure: { id: string; sentence: string } | null;
  activeLabel: string;
  /** Whether the automatic mask is being computed, or a decision is being sent. */
  proposing: boolean;
  deciding: boolean;
  work: Record<string, LabelWork>;
  /** Number of changes of the label map, which is in work/label_map.ts. */
  maskRevision: number;
  /** Strategy of "next study"; "" is the default of the project. */
  strategy: string;
  tool: Tool;
  brush: { radius_mm: number; ball: boolean };
  view: {
    /** null: all three. */
    alone: Plane | null;
    radiological: boolean;
    outline: boolean;
    /** Opacity of filled masks, 0 to 1. */
    opacity: number;
    /** Values of the scan shown as black and as white. */
    window: [number, number];
    showMasks: boolean;
    showPoints: boolean;
    crosshair: boolean;
  };
  canUndo: boolean;
  canRedo: boolean;
  /** Status line; read out by screen readers. */
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
   * Call `listener` now and whenever the value of `select` changes (or an element of the array that
   * it returns). Returns the function that stops this.
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
