// Masks of all labels of the open study in one map: 0 is none, 1 the first label. Voxels in the order of the file.

/** Changed voxels, and their values before and after. */
export interface Change {
  voxels: Uint32Array;
  before: Uint8Array;
  after: Uint8Array;
}

export class LabelMap {
  readonly values: Uint8Array;
  private counts = new Float64Array(256);

  constructor(readonly shape: readonly number[]) {
    this.values = new Uint8Array(shape[0]! * shape[1]! * shape[2]!);
  }

  count(label: number): number {
    return this.counts[label]!;
  }

  /** Apply a change, or undo it. */
  apply(change: Change, back = false): void {
    const to = back ? change.before : change.after;
    for (let n = 0; n < change.voxels.length; n++) {
      const at = change.voxels[n]!;
      this.counts[this.values[at]!]!--;
      this.values[at] = to[n]!;
      this.counts[to[n]!]!++;
    }
  }

  /**
   * Give a label the voxels that have it in another map; voxels of other labels stay.
   *
   * Returns the applied change, and the number of voxels that other labels kept.
   */
  take(mask: Uint8Array, label: number): { change: Change; kept: number } {
    const collector = new Collector(this);
    let kept = 0;
    const { values } = this;
    for (let at = 0; at < values.length; at++) {
      const now = values[at]!;
      if (mask[at] === label) {
        if (now === 0) collector.set(at, label);
        else if (now !== label) kept++;
      } else if (now === label) collector.set(at, 0);
    }
    return { change: collector.end(), kept };
  }

  /** Remove a label from the map. */
  clear(label: number): Change {
    const collector = new Collector(this);
    const { values } = this;
    if (this.counts[label]) for (let at = 0; at < values.length; at++) if (values[at] === label) collector.set(at, 0);
    return collector.end();
  }

  record(): Recorder {
    return new Recorder(this);
  }

  /** Return a map with one label only, to upload it. */
  only(label: number): Uint8Array {
    return this.values.map((value) => (value === label ? label : 0));
  }

  /** @internal */
  write(at: number, value: number): void {
    this.counts[this.values[at]!]!--;
    this.counts[value]!++;
    this.values[at] = value;
  }
}

/** Set each voxel at most once, and record the values before. */
class Collector {
  private voxels = new Uint32Array(1024);
  private before = new Uint8Array(1024);
  private after = new Uint8Array(1024);
  private size = 0;

  constructor(private readonly map: LabelMap) {}

  set(at: number, value: number): void {
    if (this.size === this.voxels.length) this.grow();
    this.voxels[this.size] = at;
    this.before[this.size] = this.map.values[at]!;
    this.after[this.size++] = value;
    this.map.write(at, value);
  }

  end(): Change {
    const { size } = this;
    return {
      voxels: this.voxels.slice(0, size),
      before: this.before.slice(0, size),
      after: this.after.slice(0, size),
    };
  }

  private grow(): void {
    const size = 2 * this.voxels.length;
    const larger = <A extends Uint8Array | Uint32Array>(old: A, made: A): A => (made.set(old), made);
    this.voxels = larger(this.voxels, new Uint32Array(size));
    this.before = larger(this.before, new Uint8Array(size));
    this.after = larger(this.after, new Uint8Array(size));
  }
}

/** Set voxels any number of times, and record their first values. */
export class Recorder {
  private first = new Map<number, number>();

  constructor(private readonly map: LabelMap) {}

  set(at: number, value: number): void {
    const was = this.map.values[at]!;
    if (was === value) return;
    if (!this.first.has(at)) this.first.set(at, was);
    this.map.write(at, value);
  }

  get size(): number {
    return this.first.size;
  }

  end(): Change {
    const count = this.first.size;
    const change = { voxels: new Uint32Array(count), before: new Uint8Array(count), after: new Uint8Array(count) };
    let n = 0;
    for (const [at, was] of this.first) {
      change.voxels[n] = at;
      change.before[n] = was;
      change.after[n++] = this.map.values[at]!;
    }
    return change;
  }
}

/** Encode a map as runs [value, length, value, length, ...]; and decode it. */
export function runsOf(values: Uint8Array): number[] {
  const runs: number[] = [];
  let start = 0;
  for (let at = 1; at <= values.length; at++)
    if (at === values.length || values[at] !== values[start]) {
      runs.push(values[start]!, at - start);
      start = at;
    }
  return runs;
}

export function fromRuns(runs: number[], length: number): Uint8Array | null {
  const values = new Uint8Array(length);
  let at = 0;
  for (let n = 0; n + 1 < runs.length; n += 2) {
    values.fill(runs[n]!, at, at + runs[n + 1]!);
    at += runs[n + 1]!;
  }
  return at === length ? values : null;
}
