// Mouse, pen and touch input over the scan.

import type { Place, Viewer } from "./viewer";

/** Pixels that a click may move. */
const STILL = 4;

type Drag = "tool" | "undecided" | "pan" | "window";

export function listenToMouse(viewer: Viewer): void {
  const { stage } = viewer;
  let start: { event: PointerEvent; place: Place; drag: Drag; x: number; y: number } | null = null;
  let spaceIsDown = false;

  const onStage = (event: PointerEvent): boolean => !(event.target as Element).closest("button, a, .curtain-box");

  stage.addEventListener("pointerdown", (event) => {
    const place = viewer.placeAt(event.clientX, event.clientY);
    if (!place || start || !onStage(event)) return;
    stage.focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
    let drag: Drag = "undecided";
    if (event.button === 1 || spaceIsDown) drag = "pan";
    else if (event.button === 0 && !event.altKey && viewer.pointer?.press(place, event)) drag = "tool";
    start = { event, place, drag, x: event.clientX, y: event.clientY };
  });

  stage.addEventListener("pointermove", (event) => {
    const place = viewer.placeAt(event.clientX, event.clientY);
    viewer.mouse = place;
    if (place) viewer.plane = place.tile.plane;
    if (!start) {
      viewer.pointer?.hover(place);
      viewer.redraw();
      return;
    }
    const moved = Math.hypot(event.clientX - start.event.clientX, event.clientY - start.event.clientY);
    if (start.drag === "undecided" && moved >= STILL) start.drag = start.event.button === 2 ? "window" : "pan";
    const [x, y] = [event.clientX - start.x, event.clientY - start.y];
    [start.x, start.y] = [event.clientX, event.clientY];
    if (start.drag === "tool") viewer.pointer?.drag(inTile(viewer, start.place, event));
    else if (start.drag === "pan") viewer.panBy(start.place.tile, x, y);
    else if (start.drag === "window" && viewer.windows)
      viewer.setView({ window: viewer.windows.dragged(viewer.app.store.state.view.window, x, y) });
    viewer.redraw();
  });

  const end = (event: PointerEvent): void => {
    if (!start) return;
    const { drag, place } = start;
    const first = start.event;
    start = null;
    if (drag === "tool") viewer.pointer?.release(inTile(viewer, place, event));
    else if (drag === "undecided" && event.type === "pointerup") click(viewer, place, first);
  };
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
  stage.addEventListener("pointerleave", () => {
    viewer.mouse = null;
    viewer.pointer?.hover(null);
    viewer.redraw();
  });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());

  stage.addEventListener("wheel", (event) => {
    const place = viewer.placeAt(event.clientX, event.clientY);
    if (!place) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) viewer.zoomBy(Math.exp(-event.deltaY / 400), place.exact);
    else viewer.scroll(place.tile.plane, wheelSteps(event));
    viewer.pointer?.hover(viewer.placeAt(event.clientX, event.clientY));
  }, { passive: false });

  window.addEventListener("keydown", (event) => {
    if (event.key === " ") spaceIsDown = true;
  });
  window.addEventListener("keyup", (event) => {
    if (event.key === " ") spaceIsDown = false;
  });
}

function click(viewer: Viewer, place: Place, event: PointerEvent): void {
  if ((event.target as Element).classList.contains("plane")) {
    void viewer.app.do("onePlane", place.tile.plane);
  } else if (event.altKey) {
    if (place.voxel) viewer.moveTo(place.voxel);
  } else if (event.button === 0 || event.button === 2) {
    viewer.pointer?.click(place, event.button === 0 && !event.shiftKey);
  }
}

/** Return the place under the mouse, in the tile in which the drag began. */
function inTile(viewer: Viewer, { tile: { plane } }: Place, event: PointerEvent): Place {
  const { left, top } = viewer.stage.getBoundingClientRect();
  const tile = viewer.tiles.find((one) => one.plane === plane)!;
  return viewer.placeIn(tile, event.clientX - left - viewer.stage.clientLeft, event.clientY - top - viewer.stage.clientTop);
}

let rest = 0;

/** Return whole slices for a wheel (a notch is 100 or 120 pixels, or 3 lines) or for a touch pad. */
function wheelSteps(event: WheelEvent): number {
  rest += event.deltaMode === 0 ? -event.deltaY / 60 : -event.deltaY / 2;
  if (Math.abs(event.deltaY) >= 50 || event.deltaMode !== 0) {
    rest = 0;
    return -Math.sign(event.deltaY);
  }
  const steps = Math.trunc(rest);
  rest -= steps;
  return steps;
}

