// Viewer: three planes of the scan on one canvas, with points and lines in an SVG above it.

import type { Voxel } from "../api";
import type { App } from "../app";
import { byId } from "../dom";
import type { Plane } from "../state";
import { mountCurtain } from "./curtain";
import { setColours } from "./colours";
import { listenToMouse } from "./mouse";
import { defineViewActions } from "./navigation";
import { drawOverlay } from "./overlay";
import { isIn, layOut, makeTile, toVoxel, type Tile } from "./planes";
import { contains, type Scan } from "./scan";
import { Painter } from "./painter";
import { keepView } from "./settings";
import { Windows, type Preset } from "./window";

/** Style of a label, by its value in the label map. */
interface LabelStyle {
  shown: boolean;
  dashed: boolean;
  active: boolean;
}

/** Point on the scan. */
export interface Mark {
  voxel: Voxel;
  /** "in": inside the structure; "out": outside. */
  kind: "in" | "out";
  /** Value of the point's label. */
  label: number;
  letter: string;
  hovered: boolean;
  refused: boolean;
}

export interface Box {
  low: Voxel;
  high: Voxel;
  label: number;
}

/** What the session draws over the scan. */
export interface Layer {
  map: Uint8Array | null;
  styles: LabelStyle[];
  marks: Mark[];
  box: Box | null;
  /** Brush under the mouse, in mm. */
  brush: { radius_mm: number; erases: boolean } | null;
}

/** Place on the stage. */
export interface Place {
  x: number;
  y: number;
  tile: Tile;
  /** Fractional voxel indices. */
  exact: [number, number, number];
  /** Voxel at the place; null outside the scan. */
  voxel: Voxel | null;
}

/** Actions of the left button on the scan. */
export interface Pointer {
  hover(place: Place | null): void;
  /** Return true to take a press, so that the drag does not pan. */
  press(place: Place, event: PointerEvent): boolean;
  drag(place: Place): void;
  release(place: Place | null): void;
  /** A press and release in one place that was not taken. */
  click(place: Place, belongs: boolean): void;
}

export class Viewer {
  scan: Scan | null = null;
  windows: Windows | null = null;
  preset: Preset = "auto";
  crosshair: Voxel = [0, 0, 0];
  centre: [number, number, number] = [0, 0, 0];
  zoom = 1;
  /** Plane under the mouse, or the last one. */
  plane: Plane = "axial";
  mouse: Place | null = null;
  tiles: Tile[] = [];
  layer: Layer = { map: null, styles: [], marks: [], box: null, brush: null };
  pointer: Pointer | null = null;
  /** Called for each drawing. */
  onDraw: () => void = () => {};
  readonly stage = byId("stage");
  private readonly canvas = byId<HTMLCanvasElement>("scan");
  private readonly overlay = byId<SVGSVGElement>("overlay");
  private readonly painter = new Painter(this.canvas);
  private waiting = false;

  constructor(readonly app: App) {
    new ResizeObserver(() => this.redraw()).observe(this.stage);
    app.store.watch(({ view, maskRevision }) => [view, maskRevision], () => this.redraw());
  }

  show(scan: Scan | null): void {
    this.scan = scan;
    this.windows = scan && new Windows(scan);
    this.painter.forget();
    this.layer = { map: null, styles: [], marks: [], box: null, brush: null };
    if (scan && this.windows) {
      this.crosshair = scan.shape.map((size) => Math.floor(size / 2)) as Voxel;
      this.setPreset(this.windows.first);
      this.fit();
    }
    this.redraw();
  }

  setPreset(preset: Preset): void {
    if (!this.windows) return;
    this.preset = preset;
    this.setView({ window: this.windows.range(preset) });
  }

  setView(change: Partial<App["store"]["state"]["view"]>): void {
    this.app.store.set({ view: { ...this.app.store.state.view, ...change } });
  }

  fit(): void {
    if (!this.scan) return;
    this.zoom = 1;
    this.centre = this.scan.shape.map((size) => (size - 1) / 2) as Voxel;
    this.redraw();
  }

  /** Move the crosshair, and pan if it would leave its tile. */
  moveTo(voxel: Voxel): void {
    if (!this.scan) return;
    this.crosshair = voxel.map((index, axis) =>
      Math.min(Math.max(Math.round(index), 0), this.scan!.shape[axis]! - 1)) as Voxel;
    this.redraw();
  }

  scroll(plane: Plane, steps: number): void {
    const tile = this.tiles.find((one) => one.plane === plane);
    if (!this.scan || !tile) return;
    const { through } = tile.axes;
    const patient = this.scan.patient.find(({ axis }) => axis === through)!;
    const voxel: Voxel = [...this.crosshair];
    voxel[through] += steps * patient.sign;
    this.moveTo(voxel);
  }

  /** Zoom by a factor; the voxel `about` keeps its place on the screen. */
  zoomBy(factor: number, about: readonly number[]): void {
    const zoom = Math.min(Math.max(this.zoom * factor, 0.5), 40);
    const stays = this.zoom / zoom;
    this.centre = this.centre.map((at, axis) => about[axis]! + (at - about[axis]!) * stays) as Voxel;
    this.zoom = zoom;
    this.redraw();
  }

  panBy(tile: Tile, x: number, y: number): void {
    const { across, down } = tile.axes;
    this.centre[across.axis] -= (x * across.sign) / tile.pitch[0];
    this.centre[down.axis] -= (y * down.sign) / tile.pitch[1];
    this.redraw();
  }

  /** Return the place at a position in the browser window. */
  placeAt(clientX: number, clientY: number): Place | null {
    const { left, top } = this.stage.getBoundingClientRect();
    const x = clientX - left - this.stage.clientLeft;
    const y = clientY - top - this.stage.clientTop;
    const tile = this.tiles.find(({ rect }) => isIn(rect, x, y));
    return tile && this.scan ? this.placeIn(tile, x, y) : null;
  }

  placeIn(tile: Tile, x: number, y: number): Place {
    const exact = toVoxel(tile, x, y, this.crosshair[tile.axes.through]);
    const rounded = exact.map(Math.round) as Voxel;
    return { x, y, tile, exact, voxel: this.scan && contains(this.scan, rounded) ? rounded : null };
  }

  redraw(): void {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  /** Draw at once, for the present size of the window. */
  draw(): void {
    const { clientWidth, clientHeight } = this.stage;
    const { view } = this.app.store.state;
    const scan = this.scan;
    this.tiles = [];
    if (scan)
      for (const [plane, rect] of layOut(clientWidth, clientHeight, view.alone))
        this.tiles.push(makeTile(scan, plane, rect, this.centre, this.zoom, view.radiological));
    this.painter.paint(this, clientWidth, clientHeight);
    drawOverlay(this.overlay, this);
    this.onDraw();
  }
}

export async function mountViewer(app: App): Promise<Viewer> {
  setColours();
  keepView(app);
  const viewer = new Viewer(app);
  mountCurtain(app);
  listenToMouse(viewer);
  defineViewActions(app, viewer);
  return viewer;
}

