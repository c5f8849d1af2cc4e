// Small facts about voxels.

import type { Voxel } from "../api";

export const same = (a: readonly number[], b: readonly number[]): boolean => a.every((index, axis) => index === b[axis]);

/** Clicks as text, to know them again. */
export const keyOf = (foreground: Voxel[], background: Voxel[]): string => JSON.stringify([foreground, background]);

/** The box of voxels, its corners inside it; null without any. */
export function boxOf(voxels: Voxel[]): { low: Voxel; high: Voxel } | null {
  if (!voxels.length) return null;
  const edge = (pick: (...values: number[]) => number): Voxel =>
    [0, 1, 2].map((axis) => pick(...voxels.map((voxel) => voxel[axis]!))) as Voxel;
  return { low: edge(Math.min), high: edge(Math.max) };
}
