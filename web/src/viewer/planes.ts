// Lay out the three planes along the voxel axes: axes on the screen, and position of each tile.

import type { Voxel } from "../api";
import type { Plane } from "../state";
import type { Scan } from "./scan";

const PLANES: Plane[] = ["axial", "coronal", "sagittal"];

/** Voxel axis, and sign of its index on the screen: 1 is right, or down. */
interface ScreenAxis {
  axis: 0 | 1 | 2;
  sign: 1 | -1;
}

export interface PlaneAxes {
  across: ScreenAxis;
  down: ScreenAxis;
  /** Voxel axis through the plane. */
  through: 0 | 1 | 2;
}

/** Anterior is up in the axial plane, the head in the others; in the sagittal plane the patient faces left. */
export function planeAxes(scan: Scan, plane: Plane, radiological: boolean): PlaneAxes {
  const [x, y, z] = scan.patient;
  const to = ({ axis, sign }: (typeof scan.patient)[0], direction: 1 | -1): ScreenAxis => ({
    axis,
    sign: (sign * direction) as 1 | -1,
  });
  const right = radiological ? -1 : 1;
  if (plane === "axial") return { across: to(x, right), down: to(y, -1), through: z.axis };
  if (plane === "coronal") return { across: to(x, right), down: to(z, -1), through: y.axis };
  return { across: to(y, -1), down: to(z, -1), through: x.axis };
}

interface Rect {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Plane on the screen, in CSS pixels of the stage. */
export interface Tile {
  plane: Plane;
  axes: PlaneAxes;
  rect: Rect;
  /** CSS pixels per voxel across and down. */
  pitch: [number, number];
  /** Position of the centre of index 0 if the signs of the axes were 1; see toScreen. */
  origin: [number, number];
}

const GAP = 4;

/** Return the tiles: axial large on the left with the others beside it; in a low, wide window three in a row. */
export function layOut(width: number, height: number, alone: Plane | null): Map<Plane, Rect> {
  if (alone) return new Map([[alone, { left: 0, top: 0, width, height }]]);
  if (width > 2.4 * height) {
    const each = (width - 2 * GAP) / 3;
    return new Map(PLANES.map((plane, n) => [plane, { left: n * (each + GAP), top: 0, width: each, height }]));
  }
  const large = Math.round((width - GAP) * 0.6);
  const half = (height - GAP) / 2;
  const left = large + GAP;
  return new Map<Plane, Rect>([
    ["axial", { left: 0, top: 0, width: large, height }],
    ["coronal", { left, top: 0, width: width - left, height: half }],
    ["sagittal", { left, top: half + GAP, width: width - left, height: half }],
  ]);
}

/**
 * `centre`: voxel (fractional) in the centre of each tile; `zoom` 1 fits each plane into its tile, with a
 * margin for the letters.
 */
export function makeTile(
  scan: Scan, plane: Plane, rect: Rect, centre: Voxel, zoom: number, radiological: boolean,
): Tile {
  const axes = planeAxes(scan, plane, radiological);
  const sizes = [axes.across, axes.down].map(({ axis }) => scan.shape[axis] * scan.spacing_mm[axis]);
  const margin = 22;
  const perMm =
    zoom *
    Math.min(Math.max(rect.width - 2 * margin, 20) / sizes[0]!, Math.max(rect.height - 2 * margin, 20) / sizes[1]!);
  const pitch = [axes.across, axes.down].map(({ axis }) => scan.spacing_mm[axis] * perMm) as [number, number];
  return {
    plane,
    axes,
    rect,
    pitch,
    origin: [
      rect.left + rect.width / 2 - axes.across.sign * centre[axes.across.axis] * pitch[0],
      rect.top + rect.height / 2 - axes.down.sign * centre[axes.down.axis] * pitch[1],
    ],
  };
}

/** Return the centre of a voxel in CSS pixels of the stage. */
export function toScreen(tile: Tile, voxel: readonly number[]): [number, number] {
  const { across, down } = tile.axes;
  return [
    tile.origin[0] + across.sign * voxel[across.axis]! * tile.pitch[0],
    tile.origin[1] + down.sign * voxel[down.axis]! * tile.pitch[1],
  ];
}

/** Return fractional voxel indices of a place on the stage, in the slice through `through`. */
export function toVoxel(tile: Tile, x: number, y: number, through: number): [number, number, number] {
  const { across, down } = tile.axes;
  const voxel: [number, number, number] = [0, 0, 0];
  voxel[across.axis] = ((x - tile.origin[0]) * across.sign) / tile.pitch[0];
  voxel[down.axis] = ((y - tile.origin[1]) * down.sign) / tile.pitch[1];
  voxel[tile.axes.through] = through;
  return voxel;
}

export function isIn(rect: Rect, x: number, y: number): boolean {
  return x >= rect.left && y >= rect.top && x < rect.left + rect.width && y < rect.top + rect.height;
}
