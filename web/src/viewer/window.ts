// Windows: the values shown as black and as white.

import type { Scan } from "./scan";

export type Preset = "auto" | "soft" | "lung" | "bone" | "brain" | "liver" | "full";

/** Centre and width in Hounsfield units. */
const CT: Partial<Record<Preset, [number, number]>> = {
  soft: [40, 400],
  lung: [-600, 1500],
  bone: [400, 1800],
  brain: [40, 80],
  liver: [60, 160],
};

interface Values {
  lowest: number;
  highest: number;
  /** Nearly all values lie between these two. */
  low: number;
  high: number;
}

export class Windows {
  private readonly values: Values;
  /** Whether the scan looks like a CT in Hounsfield units. */
  readonly isCt: boolean;
  readonly presets: Preset[];

  constructor(scan: Scan) {
    this.values = valuesOf(scan);
    this.isCt = this.values.lowest <= -500 && this.values.highest > 100;
    this.presets = this.isCt ? ["soft", "lung", "bone", "brain", "liver", "auto", "full"] : ["auto", "full"];
  }

  get first(): Preset {
    return this.presets[0]!;
  }

  range(preset: Preset): [number, number] {
    const ct = CT[preset];
    if (ct) return [ct[0] - ct[1] / 2, ct[0] + ct[1] / 2];
    const { low, high, lowest, highest } = this.values;
    return preset === "full" ? [lowest, highest] : [low, high];
  }

  /** Change the window by a drag in pixels: right widens, up brightens. */
  dragged([from, to]: [number, number], across: number, down: number): [number, number] {
    const smallest = Math.max((this.values.highest - this.values.lowest) / 4000, 1e-6);
    const width = Math.max((to - from) * Math.exp(across / 250), smallest);
    const step = Math.max(to - from, smallest) / 300;
    const centre = (from + to) / 2 + down * step;
    return [centre - width / 2, centre + width / 2];
  }
}

function valuesOf({ voxels, slope, intercept }: Scan): Values {
  const every = Math.max(1, Math.floor(voxels.length / 200_003)) | 1;
  const sample = new Float32Array(Math.ceil(voxels.length / every));
  for (let n = 0, at = 0; n < voxels.length; n += every) sample[at++] = voxels[n]! * slope + intercept;
  const finite = sample.filter(Number.isFinite).sort();
  if (!finite.length) return { lowest: 0, highest: 1, low: 0, high: 1 };
  const lowest = finite[0]!;
  const highest = finite[finite.length - 1]!;
  // Leave out the empty surroundings of the patient.
  const patient = finite.filter((value) => value > lowest + (highest - lowest) * 0.01);
  const of = patient.length > 100 ? patient : finite;
  const low = of[Math.floor(of.length * 0.005)]!;
  const high = of[Math.min(of.length - 1, Math.floor(of.length * 0.995))]!;
  return { lowest, highest, low: low < high ? low : lowest, high: low < high ? high : Math.max(highest, lowest + 1) };
}
