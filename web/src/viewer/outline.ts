// Trace outlines of a label in a slice: closed lines along the edges of its pixels.

/** Corners of closed lines, [x0, y0, x1, y1, ...] in pixels; only corners at which the line turns. */
export function outlines(labels: Uint8Array, width: number, height: number, value: number): number[][] {
  const is = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] === value;
  // The label is on the right of each edge; two edges start at a corner where pixels touch diagonally.
  const columns = width + 1;
  const starts = new Map<number, number[]>();
  const add = (from: number, direction: number): void => {
    const there = starts.get(from);
    if (there) there.push(direction);
    else starts.set(from, [direction]);
  };
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (labels[y * width + x] !== value) continue;
      if (!is(x, y - 1)) add(y * columns + x, 0);
      if (!is(x + 1, y)) add(y * columns + x + 1, 1);
      if (!is(x, y + 1)) add((y + 1) * columns + x + 1, 2);
      if (!is(x - 1, y)) add((y + 1) * columns + x, 3);
    }
  const steps = [1, columns, -1, -columns];
  const lines: number[][] = [];
  for (const [first, directions] of starts) {
    while (directions.length) {
      const line: number[] = [];
      let at = first;
      let last = -1;
      for (;;) {
        const there: number[] | undefined = starts.get(at);
        if (!there?.length) break;
        // Turn right, so that pixels that touch diagonally stay apart.
        const direction: number = there.length === 1 ? there.pop()! : take(there, (last + 1) % 4);
        if (direction !== last) line.push(at % columns, Math.floor(at / columns));
        last = direction;
        at += steps[direction]!;
      }
      lines.push(line);
    }
  }
  return lines;
}

function take(from: number[], wanted: number): number {
  const at = from.indexOf(wanted);
  return from.splice(at < 0 ? from.length - 1 : at, 1)[0]!;
}
