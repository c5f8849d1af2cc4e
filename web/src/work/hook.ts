// window.inextremis: facts for tests in a browser, to be read only.

import type { Voxel } from "../api";
import type { App } from "../app";
import type { Plane } from "../state";
import { toScreen } from "../viewer/planes";
import type { Viewer } from "../viewer/viewer";
import type { Session } from "./session";

export function mountHook(app: App, viewer: Viewer, session: () => Session | null): void {
  const facts = {
    /** Is a study open and drawn? */
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
    /** What is known of a label. */
    work: (label: string) => structuredClone(app.store.state.work[label] ?? null),
    /** Is nothing asked of the server? */
    get idle(): boolean {
      const { work, deciding, proposing, loading } = app.store.state;
      return !deciding && !proposing && !loading && Object.values(work).every(({ busy }) => !busy);
    },
    /** The voxel under a place in the window, and in which plane. */
    voxelAt: (clientX: number, clientY: number): { plane: Plane; voxel: Voxel | null } | null => {
      viewer.draw();
      const place = viewer.placeAt(clientX, clientY);
      return place && { plane: place.tile.plane, voxel: place.voxel };
    },
    /** Where a voxel is in the window, and how many slices of the plane away; null where the plane is not shown. */
    screenOf: (voxel: Voxel, plane: Plane): { x: number; y: number; slices: number } | null => {
      viewer.draw();
      const tile = viewer.tiles.find((one) => one.plane === plane);
      if (!tile || !viewer.scan) return null;
      const [x, y] = toScreen(tile, voxel);
      const { left, top } = viewer.stage.getBoundingClientRect();
      const { axis, sign } = viewer.scan.patient.find((one) => one.axis === tile.axes.through)!;
      return { x: x + left, y: y + top, slices: (voxel[axis] - viewer.crosshair[axis]) * sign };
    },
    /** Indices into the file's voxels (first axis fastest) of a label's mask. */
    maskVoxels: (label: string): number[] => {
      const open = session();
      const found: number[] = [];
      open?.map.values.forEach((value, at) => value === open.valueOf(label) && found.push(at));
      return found;
    },
  };
  Object.defineProperty(window, "inextremis", { value: Object.freeze(facts) });
}
