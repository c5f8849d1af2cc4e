// Icons; each state has its own shape, so that colour is not needed to tell them apart.

import { svg } from "../dom";

const SHAPES = {
  untouched: ["M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11"],
  clicked: ["M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11", "fill M8 2.5a5.5 5.5 0 0 1 0 11z"],
  proposed: ["M8 1.8L14.2 8L8 14.2L1.8 8z"],
  final: ["M2.5 8.5L6.3 12.3L13.5 4.2"],
  absent: ["M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11", "M4.2 11.8L11.8 4.2"],
  skipped: ["M3 3.2L8.5 8L3 12.8z", "M12.5 3.2V12.8"],
  unreadable: ["M8 2L14.5 13.5H1.5z", "M8 6.2V9.8", "M8 11.4V12"],
  none: ["M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11"],
  person: ["M8 2.2a2.9 2.9 0 1 1 0 5.8a2.9 2.9 0 1 1 0-5.8", "M2.6 14a5.4 5.4 0 0 1 10.8 0"],
  search: ["M7 2.4a4.6 4.6 0 1 1 0 9.2a4.6 4.6 0 1 1 0-9.2", "M10.5 10.5L14 14"],
  close: ["M3.5 3.5L12.5 12.5", "M12.5 3.5L3.5 12.5"],
  sun: [
    "M8 5a3 3 0 1 1 0 6a3 3 0 1 1 0-6",
    "M8 1V2.6M8 13.4V15M1 8H2.6M13.4 8H15M3.05 3.05L4.2 4.2M11.8 11.8L12.95 12.95M3.05 12.95L4.2 11.8M11.8 4.2L12.95 3.05",
  ],
  moon: ["M13.4 9.6A5.8 5.8 0 0 1 6.4 2.6A5.8 5.8 0 1 0 13.4 9.6z"],
  down: ["M4 6.5L8 10.5L12 6.5"],
  keyboard: ["M1.5 4H14.5V12.5H1.5z", "M4 7H4.6M7.7 7H8.3M11.4 7H12M5 9.8H11"],
} as const;

type Icon = keyof typeof SHAPES;

export function icon(name: Icon): SVGSVGElement {
  const paths = SHAPES[name].map((shape) =>
    shape.startsWith("fill ") ? svg("path", { class: "filled", d: shape.slice(5) }) : svg("path", { d: shape }));
  return svg("svg", { class: `icon icon-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, ...paths);
}
