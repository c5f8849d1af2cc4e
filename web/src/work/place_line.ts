// At the bottom right: which voxel is under the mouse, where it lies, and its value.

import type { App } from "../app";
import { byId } from "../dom";
import { toMm, valueAt } from "../viewer/scan";
import type { Viewer } from "../viewer/viewer";
import { text } from "../text";

export function mountPlaceLine(app: App, viewer: Viewer): void {
  const line = byId("place");
  const show = (): void => {
    const { scan } = viewer;
    const voxel = viewer.mouse ? viewer.mouse.voxel : viewer.crosshair;
    if (!scan || !voxel) line.textContent = "";
    else line.textContent = text.view.place(voxel, toMm(scan, voxel), valueAt(scan, voxel));
  };
  viewer.stage.addEventListener("pointermove", show);
  viewer.stage.addEventListener("pointerleave", show);
  viewer.stage.addEventListener("wheel", show, { passive: true });
  app.store.watch(({ study }) => study, show);
}
