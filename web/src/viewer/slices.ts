// Slices of the scan and of the label map as pictures, one pixel per voxel, oriented as on the screen.

import type { Voxels } from "./nifti";
import type { PlaneAxes } from "./planes";

export interface SliceOrder {
  width: number;
  height: number;
  /** Index of the voxel of the first pixel, and the steps to the next pixel and to the next row. */
  start: number;
  step: number;
  row: number;
}

export function sliceOrder(shape: readonly number[], axes: PlaneAxes, index: number): SliceOrder {
  const strides = [1, shape[0]!, shape[0]! * shape[1]!];
  const { across, down, through } = axes;
  const width = shape[across.axis]!;
  const height = shape[down.axis]!;
  const step = strides[across.axis]! * across.sign;
  const row = strides[down.axis]! * down.sign;
  const start =
    strides[through]! * index +
    (across.sign < 0 ? -step * (width - 1) : 0) +
    (down.sign < 0 ? -row * (height - 1) : 0);
  return { width, height, start, step, row };
}

/** Return grey values of a slice between `black` and `white`, in stored values. */
export function paintScan(pixels: Uint32Array, voxels: Voxels, order: SliceOrder, black: number, white: number): void {
  const scale = 255 / (white - black || 1);
  let at = 0;
  for (let y = 0; y < order.height; y++) {
    let index = order.start + y * order.row;
    for (let x = 0; x < order.width; x++, index += order.step) {
      const grey = (voxels[index]! - black) * scale;
      const byte = grey <= 0 ? 0 : grey >= 255 ? 255 : grey | 0;
      pixels[at++] = 0xff000000 | (byte << 16) | (byte << 8) | byte;
    }
  }
}

/** Write colours by value (little-endian RGBA) for a slice of the label map; returns whether it holds any label. */
export function paintLabels(pixels: Uint32Array, map: Uint8Array, order: SliceOrder, colours: Uint32Array): boolean {
  let any = 0;
  let at = 0;
  for (let y = 0; y < order.height; y++) {
    let index = order.start + y * order.row;
    for (let x = 0; x < order.width; x++, index += order.step) {
      const label = map[index]!;
      any |= label;
      pixels[at++] = colours[label]!;
    }
  }
  return any !== 0;
}

/** Return the labels of a slice by pixel. */
export function sliceLabels(map: Uint8Array, order: SliceOrder): Uint8Array {
  const labels = new Uint8Array(order.width * order.height);
  let at = 0;
  for (let y = 0; y < order.height; y++) {
    let index = order.start + y * order.row;
    for (let x = 0; x < order.width; x++, index += order.step) labels[at++] = map[index]!;
  }
  return labels;
}
