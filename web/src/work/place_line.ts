// Bottom right: index, position and value of the voxel under the mouse, or at the crosshair.

import { byId } from "../dom";
import { text } from "../text";
import { toMm, valueAt } from "../viewer/scan";
import type { Viewer } from "../viewer/viewer";

export function mountPlaceLine(viewer: Viewer): void {
  const line = byId("place");
  viewer.onDraw = () => {
    const { scan, mouse } = viewer;
    const place = mouse && viewer.placeIn(mouse.tile, mouse.x, mouse.y);
    const voxel = place ? place.voxel : viewer.crosshair;
    line.textContent = scan && voxel ? text.view.place(voxel, toMm(scan, voxel), valueAt(scan, voxel)) : "";
  };
}
