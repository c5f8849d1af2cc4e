// Colours of the labels: Okabe and Ito, which the colour-blind can tell apart. Set as --label-1 ... on the page.

const COLOURS = ["#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#009e73", "#d55e00", "#7fa6ff", "#c0c0c0"];

/** Of the label with this value, from 1; after the eighth they begin anew. */
export function colourOf(value: number): string {
  return COLOURS[(value - 1) % COLOURS.length]!;
}

/** Class of elements that take this colour from `--label`. */
export function colourClass(value: number): string {
  return `label-${((value - 1) % COLOURS.length) + 1}`;
}

/** As ImageData has it on machines whose lowest byte comes first: all that a browser runs on. */
export function packed(value: number, opacity: number): number {
  const rgb = Number.parseInt(colourOf(value).slice(1), 16);
  const alpha = Math.round(opacity * 255);
  return ((alpha << 24) | ((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
}

export function setColours(): void {
  COLOURS.forEach((colour, n) => document.documentElement.style.setProperty(`--label-${n + 1}`, colour));
}
