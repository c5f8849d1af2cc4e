// Small functions of voxels.

import type { Voxel } from "../api";

export const same = (a: readonly number[], b: readonly number[]): boolean => a.every((index, axis) => index === b[axis]);

/** Return clicks as text, to compare them. */
export const keyOf = (foreground: Voxel[], background: Voxel[]): string => JSON.stringify([foreground, background]);

/** Return the box of voxels, corners included; null without voxels. */
export function boxOf(voxels: Voxel[]): { low: Voxel; high: Voxel } | null {
  if (!voxels.length) return null;
  const edge = (pick: (...values: number[]) => number): Voxel =>
    [0, 1, 2].map((axis) => pick(...voxels.map((voxel) => voxel[axis]!))) as Voxel;
  return { low: edge(Math.min), high: edge(Math.max) };
}
