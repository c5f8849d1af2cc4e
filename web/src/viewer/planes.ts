// The three planes through the scan, along its voxels: which axis lies where on the screen, and where each tile is.

import type { Voxel } from "../api";
import type { Plane } from "../state";
import type { Scan } from "./scan";

const PLANES: Plane[] = ["axial", "coronal", "sagittal"];

/** Axis of the voxels and the direction of growing index on the screen: 1 is right, or down. */
interface ScreenAxis {
  axis: 0 | 1 | 2;
  sign: 1 | -1;
}

export interface PlaneAxes {
  across: ScreenAxis;
  down: ScreenAxis;
  /** Of the voxels, through the plane. */
  through: 0 | 1 | 2;
}

/** Front is up in the axial plane, head is up in the others; in the sagittal one the patient looks to the left. */
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

/** A plane as it is on the screen, in CSS pixels of the stage. */
export interface Tile {
  plane: Plane;
  axes: PlaneAxes;
  rect: Rect;
  /** CSS pixels for one voxel across and down. */
  pitch: [number, number];
  /** Where index 0's middle would be, were the axes' signs 1; see toScreen. */
  origin: [number, number];
}

const GAP = 4;

/** The axial plane large on the left and the others beside it; in a low, wide window all three side by side. */
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
 * `centre`: the voxel (broken numbers too) in the middle of every tile; `zoom` 1 fits each plane into its tile, with a
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

/** Where the middle of a voxel is, in CSS pixels of the stage. */
export function toScreen(tile: Tile, voxel: readonly number[]): [number, number] {
  const { across, down } = tile.axes;
  return [
    tile.origin[0] + across.sign * voxel[across.axis]! * tile.pitch[0],
    tile.origin[1] + down.sign * voxel[down.axis]! * tile.pitch[1],
  ];
}

/** Broken voxel indices under a place of the stage, on the slice through `through`. */
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
