// Actions that move, zoom and window the picture.

import type { Voxel } from "../api";
import type { App } from "../app";
import type { Plane } from "../state";
import type { Viewer } from "./viewer";

export function defineViewActions(app: App, viewer: Viewer): void {
  const view = (): typeof app.store.state.view => app.store.state.view;
  app.define("sliceUp", (steps) => viewer.scroll(viewer.plane, Number(steps ?? 1)));
  app.define("sliceDown", (steps) => viewer.scroll(viewer.plane, -Number(steps ?? 1)));
  app.define("zoomIn", () => viewer.zoomBy(1.25, viewer.crosshair));
  app.define("zoomOut", () => viewer.zoomBy(0.8, viewer.crosshair));
  app.define("fit", () => viewer.fit());
  app.define("onePlane", (plane) =>
    viewer.setView({ alone: view().alone ? null : ((plane as Plane | undefined) ?? viewer.plane) }));
  app.define("outline", () => viewer.setView({ outline: !view().outline }));
  app.define("masks", () => viewer.setView({ showMasks: !view().showMasks }));
  app.define("showPoints", () => viewer.setView({ showPoints: !view().showPoints }));
  app.define("crosshair", () => viewer.setView({ crosshair: !view().crosshair }));
  app.define("radiological", () => viewer.setView({ radiological: !view().radiological }));
  app.define("windowPreset", (preset) => {
    if (!viewer.windows) return;
    const { presets } = viewer.windows;
    const next = presets[(presets.indexOf(viewer.preset) + 1) % presets.length]!;
    viewer.setPreset((presets.find((one) => one === preset) ?? next));
  });
  app.define("moveCrosshair", (direction) => moveCrosshair(viewer, direction ?? ""));
}

/** Move by one voxel left, right, up or down in the plane under the mouse. */
function moveCrosshair(viewer: Viewer, direction: string): void {
  const tile = viewer.tiles.find((one) => one.plane === viewer.plane) ?? viewer.tiles[0];
  if (!tile) return;
  const { across, down } = tile.axes;
  const voxel: Voxel = [...viewer.crosshair];
  if (direction === "left" || direction === "right") voxel[across.axis] += across.sign * (direction === "left" ? -1 : 1);
  else voxel[down.axis] += down.sign * (direction === "up" ? -1 : 1);
  viewer.moveTo(voxel);
}
