// Draw the SVG over the planes: names, orientation letters, crosshair, points, box, scale.

import { svg } from "../dom";
import { text } from "../text";
import { colourClass } from "./colours";
import { toScreen, type Tile } from "./planes";
import { letters, type Scan } from "./scan";
import type { Mark, Viewer } from "./viewer";

type Part = SVGElement | null;

export function drawOverlay(overlay: SVGSVGElement, viewer: Viewer): void {
  overlay.replaceChildren(...viewer.tiles.map((tile) => drawTile(viewer, tile)));
}

function drawTile(viewer: Viewer, tile: Tile): SVGElement {
  const { left, top, width, height } = tile.rect;
  const { view } = viewer.app.store.state;
  const scan = viewer.scan!;
  const parts: Part[] = [
    view.crosshair ? crosshair(viewer, tile) : null,
    view.showPoints ? box(viewer, tile) : null,
    ...(view.showPoints ? viewer.layer.marks.map((mark) => point(viewer, tile, mark)) : []),
    brush(viewer, tile),
    svg("g", { class: "directions" }, ...directions(scan, tile)),
    svg("text", { class: "plane", x: left + 8, y: top + 18 }, text.view.planes[tile.plane]),
    svg("text", { class: "slice", x: left + 8, y: top + 34 }, sliceText(viewer, tile)),
    tile.plane === "sagittal"
      ? null
      : svg(
          "text",
          { class: "convention", x: left + 8, y: top + height - 9 },
          view.radiological ? text.view.radiologicalShort : text.view.neurologicalShort,
        ),
    scale(tile, scan),
  ];
  const clipped = svg("svg", { x: left, y: top, width, height, viewBox: `${left} ${top} ${width} ${height}` }, ...parts);
  clipped.classList.add("tile", ...(viewer.plane === tile.plane ? ["under-mouse"] : []));
  clipped.dataset.plane = tile.plane;
  return clipped;
}

function sliceText(viewer: Viewer, { axes: { through } }: Tile): string {
  return text.view.slice(viewer.crosshair[through] + 1, viewer.scan!.shape[through]);
}

function directions(scan: Scan, { rect, axes: { across, down } }: Tile): SVGElement[] {
  const { left, top, width, height } = rect;
  const at = (x: number, y: number, words: string, anchor: string): SVGElement =>
    svg("text", { x, y, "text-anchor": anchor }, words);
  return [
    at(left + 7, top + height / 2 + 5, letters(scan, across.axis, -across.sign), "start"),
    at(left + width - 7, top + height / 2 + 5, letters(scan, across.axis, across.sign), "end"),
    at(left + width / 2, top + 18, letters(scan, down.axis, -down.sign), "middle"),
    at(left + width / 2, top + height - 8, letters(scan, down.axis, down.sign), "middle"),
  ];
}

function crosshair(viewer: Viewer, tile: Tile): SVGElement {
  const [x, y] = toScreen(tile, viewer.crosshair);
  const { left, top, width, height } = tile.rect;
  const line = (x1: number, y1: number, x2: number, y2: number): SVGElement => svg("line", { x1, y1, x2, y2 });
  const gap = 12;
  return svg("g", { class: "crosshair" },
    line(left, y, x - gap, y), line(x + gap, y, left + width, y),
    line(x, top, x, y - gap), line(x, y + gap, x, top + height));
}

function box(viewer: Viewer, tile: Tile): Part {
  const { box } = viewer.layer;
  if (!box) return null;
  const [x0, y0] = toScreen(tile, box.low);
  const [x1, y1] = toScreen(tile, box.high);
  const at = viewer.crosshair[tile.axes.through];
  const inside = at >= box.low[tile.axes.through] && at <= box.high[tile.axes.through];
  return svg("rect", {
    class: `box ${colourClass(box.label)} ${inside ? "" : "away"}`,
    x: Math.min(x0, x1) - tile.pitch[0] / 2,
    y: Math.min(y0, y1) - tile.pitch[1] / 2,
    width: Math.abs(x1 - x0) + tile.pitch[0],
    height: Math.abs(y1 - y0) + tile.pitch[1],
  });
}

/** Draw a point full in its own slice, as a small ring in others if it is of the active label. */
function point(viewer: Viewer, tile: Tile, mark: Mark): Part {
  const away = Math.abs(viewer.crosshair[tile.axes.through] - mark.voxel[tile.axes.through]);
  const [x, y] = toScreen(tile, mark.voxel);
  const classes = ["point", colourClass(mark.label), mark.kind, away ? "away" : "", mark.hovered ? "hovered" : ""];
  if (mark.refused) classes.push("refused");
  const radius = away ? 3 : mark.hovered ? 8 : 6;
  const cross = mark.kind === "out" && !away
    ? svg("path", { d: `M${x - 3.5} ${y - 3.5}l7 7m0-7l-7 7` })
    : null;
  const letter = mark.letter && !away ? svg("text", { x: x + 10, y: y - 8 }, mark.letter) : null;
  return svg("g", { class: classes.join(" ") }, svg("circle", { cx: x, cy: y, r: radius }), cross, letter);
}

function brush(viewer: Viewer, tile: Tile): Part {
  const { brush } = viewer.layer;
  if (!brush || viewer.mouse?.tile.plane !== tile.plane) return null;
  const perMm = tile.pitch[0] / viewer.scan!.spacing_mm[tile.axes.across.axis];
  return svg("circle", {
    class: `brush ${brush.erases ? "erases" : ""}`,
    cx: viewer.mouse.x,
    cy: viewer.mouse.y,
    r: Math.max(brush.radius_mm * perMm, 2),
  });
}

function scale(tile: Tile, scan: Scan): Part {
  const perMm = tile.pitch[0] / scan.spacing_mm[tile.axes.across.axis];
  const fits = tile.rect.width / 5 / perMm;
  const power = 10 ** Math.floor(Math.log10(fits));
  const mm = [5, 2, 1].map((one) => one * power).find((one) => one <= fits) ?? power;
  const right = tile.rect.left + tile.rect.width - 10;
  const y = tile.rect.top + tile.rect.height - 12;
  const words = mm >= 10 ? `${mm / 10} cm` : `${mm} mm`;
  const left = right - mm * perMm;
  return svg("g", { class: "scale" },
    svg("path", { d: `M${left} ${y - 4}v4h${mm * perMm}v-4` }),
    svg("text", { x: right, y: y - 8, "text-anchor": "end" }, words));
}
