// Colours of the labels (Okabe and Ito), distinguishable by the colour-blind. Set as --label-1 ... on the page.

const COLOURS = ["#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#009e73", "#d55e00", "#7fa6ff", "#c0c0c0"];

/** Return the colour of the label with this value, from 1; they repeat after the eighth. */
export function colourOf(value: number): string {
  return COLOURS[(value - 1) % COLOURS.length]!;
}

/** Return the class of elements that take this colour from `--label`. */
export function colourClass(value: number): string {
  return `label-${((value - 1) % COLOURS.length) + 1}`;
}

/** Return the colour for ImageData in little-endian order, which all browsers use. */
export function packed(value: number, opacity: number): number {
  const rgb = Number.parseInt(colourOf(value).slice(1), 16);
  const alpha = Math.round(opacity * 255);
  return ((alpha << 24) | ((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
}

export function setColours(): void {
  COLOURS.forEach((colour, n) => document.documentElement.style.setProperty(`--label-${n + 1}`, colour));
}
