// Paint the planes: grey slices, and the masks over them.

import { colourOf, packed } from "./colours";
import { outlines } from "./outline";
import type { Tile } from "./planes";
import { paintLabels, paintScan, sliceLabels, sliceOrder, type SliceOrder } from "./slices";
import type { Viewer } from "./viewer";

/** Picture of a slice, with what it was made from. */
interface Picture {
  canvas: HTMLCanvasElement;
  made: string;
  /** Closed lines by label, in pixels of the slice; for masks only. */
  lines: Map<number, Path2D>;
  any: boolean;
}

/** Colour between the planes. */
const BETWEEN = "#3a4450";

export class Painter {
  private pictures = new Map<string, Picture>();

  constructor(private readonly canvas: HTMLCanvasElement) {}

  /** Set another scan. */
  forget(): void {
    this.pictures.clear();
  }

  /** `width`, `height` in CSS pixels. */
  paint(viewer: Viewer, width: number, height: number): void {
    const dense = window.devicePixelRatio || 1;
    const [across, down] = [Math.round(width * dense), Math.round(height * dense)];
    if (this.canvas.width !== across) this.canvas.width = across;
    if (this.canvas.height !== down) this.canvas.height = down;
    const context = this.canvas.getContext("2d", { alpha: false })!;
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.fillStyle = BETWEEN;
    context.fillRect(0, 0, width, height);
    for (const tile of viewer.tiles) this.paintTile(context, viewer, tile);
  }

  private paintTile(context: CanvasRenderingContext2D, viewer: Viewer, tile: Tile): void {
    const { scan } = viewer;
    const { view, maskRevision } = viewer.app.store.state;
    const index = viewer.crosshair[tile.axes.through];
    const order = sliceOrder(scan!.shape, tile.axes, index);
    context.save();
    context.beginPath();
    context.rect(tile.rect.left, tile.rect.top, tile.rect.width, tile.rect.height);
    context.clip();
    context.fillStyle = "#000";
    context.fill();
    context.translate(...corner(tile, order));
    context.scale(...tile.pitch);

    const grey = this.picture(`scan ${tile.plane}`, order, `${index} ${view.window} ${view.radiological}`, (pixels) => {
      const [black, white] = view.window.map((value) => (value - scan!.intercept) / scan!.slope);
      paintScan(pixels, scan!.voxels, order, black!, white!);
      return true;
    });
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "medium";
    context.drawImage(grey.canvas, 0, 0);

    const { map, styles } = viewer.layer;
    if (map && view.showMasks) {
      const made = `${index} ${maskRevision} ${view.radiological} ${view.opacity} ${JSON.stringify(styles)}`;
      const mask = this.picture(`mask ${tile.plane}`, order, made, (pixels, lines) => {
        const colours = new Uint32Array(256);
        styles.forEach((style, n) => {
          const opacity = view.opacity * (style.dashed ? 0.4 : 1);
          if (style.shown) colours[n + 1] = packed(n + 1, opacity);
        });
        if (!paintLabels(pixels, map, order, colours)) return false;
        const labels = sliceLabels(map, order);
        styles.forEach((style, n) => style.shown && lines.set(n + 1, path(labels, order, n + 1)));
        return true;
      });
      if (mask.any) this.paintMask(context, mask, viewer, tile);
    }
    context.restore();
  }

  private paintMask(context: CanvasRenderingContext2D, mask: Picture, viewer: Viewer, tile: Tile): void {
    context.imageSmoothingEnabled = false;
    context.drawImage(mask.canvas, 0, 0);
    if (!viewer.app.store.state.view.outline) return;
    context.setTransform(window.devicePixelRatio || 1, 0, 0, window.devicePixelRatio || 1, 0, 0);
    const [left, top] = corner(tile, mask.canvas);
    const onScreen = new DOMMatrix([tile.pitch[0], 0, 0, tile.pitch[1], left, top]);
    for (const [value, lines] of mask.lines) {
      const style = viewer.layer.styles[value - 1]!;
      const placed = new Path2D();
      placed.addPath(lines, onScreen);
      context.lineWidth = style.active ? 1.8 : 1.2;
      context.strokeStyle = colourOf(value);
      context.setLineDash(style.dashed ? [6, 5] : []);
      context.stroke(placed);
    }
    context.setLineDash([]);
  }

  private picture(
    name: string,
    order: SliceOrder,
    made: string,
    paint: (pixels: Uint32Array, lines: Map<number, Path2D>) => boolean,
  ): Picture {
    let picture = this.pictures.get(name);
    if (picture?.made === made && picture.canvas.width === order.width && picture.canvas.height === order.height)
      return picture;
    picture ??= { canvas: document.createElement("canvas"), made, lines: new Map(), any: false };
    picture.canvas.width = order.width;
    picture.canvas.height = order.height;
    picture.made = made;
    picture.lines.clear();
    const image = new ImageData(order.width, order.height);
    picture.any = paint(new Uint32Array(image.data.buffer), picture.lines);
    picture.canvas.getContext("2d")!.putImageData(image, 0, 0);
    this.pictures.set(name, picture);
    return picture;
  }
}

/** Return left and top of the first pixel of a slice, in CSS pixels of the stage. */
function corner(tile: Tile, { width, height }: { width: number; height: number }): [number, number] {
  const { across, down } = tile.axes;
  return [
    tile.origin[0] - (across.sign > 0 ? 0.5 : width - 0.5) * tile.pitch[0],
    tile.origin[1] - (down.sign > 0 ? 0.5 : height - 0.5) * tile.pitch[1],
  ];
}

function path(labels: Uint8Array, { width, height }: SliceOrder, value: number): Path2D {
  const made = new Path2D();
  for (const line of outlines(labels, width, height, value)) {
    made.moveTo(line[0]!, line[1]!);
    for (let n = 2; n < line.length; n += 2) made.lineTo(line[n]!, line[n + 1]!);
    made.closePath();
  }
  return made;
}
