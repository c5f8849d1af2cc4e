// window.inextremis: read-only facts for browser tests.

import type { Voxel } from "../api";
import type { App } from "../app";
import type { Plane } from "../state";
import { toScreen } from "../viewer/planes";
import type { Viewer } from "../viewer/viewer";
import type { Session } from "./session";

export function mountHook(app: App, viewer: Viewer, session: () => Session | null): void {
  const facts = {
    /** Whether a study is open and drawn. */
    get ready(): boolean {
      return Boolean(session() && app.store.state.study && viewer.tiles.length);
    },
    get study(): string | null {
      return app.store.state.study?.id ?? null;
    },
    get crosshair(): Voxel {
      return [...viewer.crosshair];
    },
    get window(): [number, number] {
      return [...app.store.state.view.window];
    },
    /** Work on a label. */
    work: (label: string) => structuredClone(app.store.state.work[label] ?? null),
    /** Whether no request to the server is pending. */
    get idle(): boolean {
      const { work, deciding, proposing, loading } = app.store.state;
      return !deciding && !proposing && !loading && Object.values(work).every(({ busy }) => !busy);
    },
    /** Voxel and plane at a place in the window. */
    voxelAt: (clientX: number, clientY: number): { plane: Plane; voxel: Voxel | null } | null => {
      viewer.draw();
      const place = viewer.placeAt(clientX, clientY);
      return place && { plane: place.tile.plane, voxel: place.voxel };
    },
    /** Place of a voxel in the window, and its distance in slices of the plane; null if the plane is hidden. */
    screenOf: (voxel: Voxel, plane: Plane): { x: number; y: number; slices: number } | null => {
      viewer.draw();
      const tile = viewer.tiles.find((one) => one.plane === plane);
      if (!tile || !viewer.scan) return null;
      const [x, y] = toScreen(tile, voxel);
      const { left, top } = viewer.stage.getBoundingClientRect();
      const { axis, sign } = viewer.scan.patient.find((one) => one.axis === tile.axes.through)!;
      return { x: x + left, y: y + top, slices: (voxel[axis] - viewer.crosshair[axis]) * sign };
    },
    /** Indices into the file's voxels (first axis fastest) of the mask of a label. */
    maskVoxels: (label: string): number[] => {
      const open = session();
      const found: number[] = [];
      open?.map.values.forEach((value, at) => value === open.valueOf(label) && found.push(at));
      return found;
    },
  };
  Object.defineProperty(window, "inextremis", { value: Object.freeze(facts) });
}
