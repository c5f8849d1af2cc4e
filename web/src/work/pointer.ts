// Actions of the left button on the scan: points, or the brush.

import type { Voxel } from "../api";
import { text } from "../text";
import { toScreen } from "../viewer/planes";
import type { Place, Pointer } from "../viewer/viewer";
import { dab, strokeLine, type Stroke } from "./brush";
import type { Clicks, Kind } from "./clicks";
import type { Recorder } from "./label_map";
import type { Session } from "./session";
import { same } from "./voxels";

/** Pixels within which a point is grabbed. */
const REACH = 9;
/** Pixels that a click may move. */
const STILL = 4;

type Drag =
  | { what: "point"; kind: Kind; index: number; start: Voxel; now: Voxel; pressed: Place; moved: boolean }
  | { what: "stroke"; stroke: Stroke; recorder: Recorder; last: readonly number[] };

export class WorkPointer implements Pointer {
  private current: Drag | null = null;
  /** Point that is dragged, and its present position. */
  dragged: { kind: Kind; index: number; voxel: Voxel } | null = null;

  constructor(
    private readonly session: Session,
    private readonly clicks: Clicks,
    private readonly refresh: () => void,
  ) {}

  hover(place: Place | null): void {
    const { session } = this;
    const found = place && session.app.store.state.tool === "points" ? this.pointAt(place) : null;
    session.viewer.stage.classList.toggle("on-point", Boolean(found));
    const now = found && { label: session.active, ...found };
    if (JSON.stringify(now) === JSON.stringify(session.hovered)) return;
    session.hovered = now;
    this.refresh();
  }

  press(place: Place, event: PointerEvent): boolean {
    if (event.button !== 0) return false;
    const { session } = this;
    const { tool, brush } = session.app.store.state;
    if (tool === "points") {
      const found = event.shiftKey ? null : this.pointAt(place);
      if (!found) return false;
      const start = this.voxelsOf(found.kind)[found.index]!;
      this.current = { what: "point", ...found, start, now: start, pressed: place, moved: false };
      return true;
    }
    const stroke: Stroke = {
      label: session.valueOf(session.active),
      erases: (tool === "eraser") !== event.shiftKey,
      radius_mm: brush.radius_mm,
      through: brush.ball ? null : place.tile.axes.through,
    };
    this.clicks.abort(session.active);
    this.current = { what: "stroke", stroke, recorder: session.map.record(), last: place.exact };
    dab(session.map, this.current.recorder, session.scan, place.exact, stroke);
    session.repaint();
    return true;
  }

  drag(place: Place): void {
    const { session, current: drag } = this;
    if (drag?.what === "point" && place.voxel) {
      drag.moved ||= Math.hypot(place.x - drag.pressed.x, place.y - drag.pressed.y) >= STILL;
      if (!drag.moved) return;
      drag.now = place.voxel;
      this.dragged = { kind: drag.kind, index: drag.index, voxel: place.voxel };
      this.refresh();
    } else if (drag?.what === "stroke") {
      strokeLine(session.map, drag.recorder, session.scan, drag.last, place.exact, drag.stroke);
      drag.last = place.exact;
      session.repaint();
    }
  }

  release(place: Place | null): void {
    const { session, current: drag } = this;
    this.current = null;
    this.dragged = null;
    if (drag?.what === "point") {
      // A click beside a point places a new one.
      if (!drag.moved && drag.pressed.voxel && !same(drag.pressed.voxel, drag.start)) this.click(drag.pressed, true);
      if (same(drag.now, drag.start)) {
        this.refresh();
        return;
      }
      const taken = [...this.voxelsOf("in"), ...this.voxelsOf("out")].some((one) => same(one, drag.now));
      if (taken) session.app.say(text.said.samePoint, "error");
      else this.clicks.move(drag.kind, drag.index, drag.now);
      this.refresh();
    } else if (drag?.what === "stroke") {
      const change = drag.recorder.end();
      if (change.voxels.length) session.edit(session.active, { source: "drawn", overlaps: false, refusal: null }, [change]);
      if (place) this.hover(place);
    }
  }

  click(place: Place, belongs: boolean): void {
    const { tool } = this.session.app.store.state;
    if (tool !== "points") return;
    if (!place.voxel) this.session.app.say(text.said.outside, "error");
    else this.clicks.place(place.voxel, belongs ? "in" : "out");
  }

  private voxelsOf(kind: Kind): Voxel[] {
    const work = this.session.work(this.session.active);
    return kind === "in" ? work.foreground : work.background;
  }

  /** Return the nearest point of the active label in this slice within reach of the mouse. */
  private pointAt({ tile, x, y }: Place): { kind: Kind; index: number } | null {
    const { viewer } = this.session;
    let best: { kind: Kind; index: number; away: number } | null = null;
    for (const kind of ["in", "out"] as const)
      this.voxelsOf(kind).forEach((voxel, index) => {
        if (voxel[tile.axes.through] !== viewer.crosshair[tile.axes.through]) return;
        const [px, py] = toScreen(tile, voxel);
        const away = Math.hypot(px - x, py - y);
        if (away <= REACH && (!best || away < best.away)) best = { kind, index, away };
      });
    return best && { kind: (best as { kind: Kind }).kind, index: (best as { index: number }).index };
  }
}
