// Small curve with axes.

import { svg } from "../dom";

interface CurveWords {
  /** Text for screen readers. */
  label: string;
  x: string;
}

const HEIGHT = 104;
const LEFT = 38;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 28;
const DOTS_MOST = 30;

/** `points`: [iteration, value]; `range` of the values, null: from the points. */
export function curve(
  points: [number, number][],
  kind: string,
  width: number,
  range: [number, number] | null,
  words: CurveWords,
): SVGSVGElement {
  const xs = ticks(...spread(points.map(([x]) => x)), 4);
  const ys = ticks(...(range ?? spread(points.map(([, y]) => y))), 3);
  const [x0, x1] = spread(points.map(([x]) => x));
  const [y0, y1] = [ys[0]!, ys[ys.length - 1]!];
  const right = width - RIGHT;
  const bottom = HEIGHT - BOTTOM;
  const x = (value: number): number => LEFT + ((value - x0) / (x1 - x0)) * (right - LEFT);
  const y = (value: number): number => bottom - ((value - y0) / (y1 - y0)) * (bottom - TOP);
  const path = points.map(([a, b], n) => `${n ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const dots = points.length <= DOTS_MOST ? points : points.slice(-1);
  return svg("svg", { class: `curve curve-${kind}`, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": words.label },
    ...ys.map((value) => svg("path", { class: "grid", d: `M${LEFT} ${y(value).toFixed(1)}H${right}` })),
    ...ys.map((value) => svg("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, shortNumber(value))),
    svg("path", { class: "axis", d: `M${LEFT} ${TOP}V${bottom}H${right}` }),
    ...xs.filter((value) => value >= x0 && value <= x1).map((value) =>
      svg("text", { x: x(value), y: bottom + 13, "text-anchor": x(value) > right - 16 ? "end" : "middle" }, shortNumber(value))),
    svg("text", { class: "unit", x: right, y: bottom + 25, "text-anchor": "end" }, words.x),
    svg("path", { class: "line", d: path }),
    ...dots.map(([a, b]) => svg("circle", { cx: x(a), cy: y(b), r: points.length <= DOTS_MOST ? 2.2 : 2.8 })));
}

/** Return the smallest and the largest value, never equal. */
function spread(values: number[]): [number, number] {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (high > low) return [low, high];
  const half = Math.abs(low) * 0.1 || 0.5;
  return [low - half, high + half];
}

/** Return about `count` round numbers that cover a range. */
function ticks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / (count - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999)!;
  const first = Math.floor(low / step + 1e-9) * step;
  const made = [first];
  while (made[made.length - 1]! < high - step * 1e-6) made.push(first + made.length * step);
  return made;
}

/** Format a number: "1.5k", "0.25". */
export function shortNumber(value: number): string {
  if (Math.abs(value) >= 1000) return `${Number((value / 1000).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}
