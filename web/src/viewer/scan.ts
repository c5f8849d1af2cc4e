// Open scan: its voxels, and the orientation of its axes in the patient.

import type { Geometry, Voxel } from "../api";
import type { Nifti, Voxels } from "./nifti";

/** Patient axis, 0: left to right, 1: posterior to anterior, 2: inferior to superior, as a voxel axis. */
interface PatientAxis {
  /** Voxel axis. */
  axis: 0 | 1 | 2;
  /** 1: the index grows to the right, anterior, superior. */
  sign: 1 | -1;
}

export interface Scan {
  shape: Voxel;
  spacing_mm: Voxel;
  affine: number[][];
  voxels: Voxels;
  slope: number;
  intercept: number;
  /** By patient axis. */
  patient: [PatientAxis, PatientAxis, PatientAxis];
}

export function makeScan(file: Nifti, geometry: Geometry): Scan {
  if (file.shape.some((size, axis) => size !== geometry.shape[axis]))
    throw new Error(
      `The file of the scan has ${file.shape.join(" x ")} voxels, but the study ${geometry.shape.join(" x ")}. ` +
        "Open it again.",
    );
  const affine = geometry.affine;
  const spacing_mm = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => affine[row]![axis]!))) as Voxel;
  return {
    shape: geometry.shape,
    spacing_mm,
    affine,
    voxels: file.voxels,
    slope: file.slope,
    intercept: file.intercept,
    patient: patientAxes(affine, spacing_mm),
  };
}

const ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] as const;

/** Assign to each patient axis the voxel axis closest to it, each one once. */
function patientAxes(affine: number[][], spacing_mm: readonly number[]): Scan["patient"] {
  const along = (row: number, axis: number): number => affine[row]![axis]! / spacing_mm[axis]!;
  const fit = (order: readonly number[]): number =>
    order.reduce((sum, axis, row) => sum + Math.abs(along(row, axis)), 0);
  const best = ORDERS.reduce((a, b) => (fit(b) > fit(a) + 1e-9 ? b : a));
  return best.map((axis, row) => ({ axis, sign: along(row, axis) < 0 ? -1 : 1 })) as Scan["patient"];
}

export function toMm(scan: Pick<Scan, "affine">, voxel: readonly number[]): [number, number, number] {
  return scan.affine
    .slice(0, 3)
    .map((row) => row[0]! * voxel[0]! + row[1]! * voxel[1]! + row[2]! * voxel[2]! + row[3]!) as never;
}

export function contains(scan: Pick<Scan, "shape">, voxel: readonly number[]): boolean {
  return voxel.every((index, axis) => index >= 0 && index < scan.shape[axis]!);
}

export function valueAt(scan: Scan, [i, j, k]: Voxel): number {
  const [x, y] = scan.shape;
  return scan.voxels[i + x * (j + y * k)]! * scan.slope + scan.intercept;
}

/** Return letters of a direction in voxel indices, the strongest first: "L", or "LA" on an oblique scan. */
export function letters(scan: Scan, axis: number, sign: number): string {
  const parts = [0, 1, 2].map((row) => (scan.affine[row]![axis]! / scan.spacing_mm[axis]!) * sign);
  return [0, 1, 2]
    .filter((row) => Math.abs(parts[row]!) > 0.3)
    .sort((a, b) => Math.abs(parts[b]!) - Math.abs(parts[a]!))
    .slice(0, 2)
    .map((row) => ["LR", "PA", "IS"][row]![parts[row]! > 0 ? 1 : 0])
    .join("");
}
