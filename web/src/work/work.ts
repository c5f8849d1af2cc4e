// Annotation of the open study: connects the session to the viewer, the panel, the keys and the browser's storage.

import { Away } from "../api";
import type { App } from "../app";
import { text } from "../text";
import { planeAxes } from "../viewer/planes";
import type { Viewer } from "../viewer/viewer";
import { fillBetween } from "./brush";
import { Clicks } from "./clicks";
import { Decisions } from "./decisions";
import { mountHook } from "./hook";
import { keep } from "./kept";
import { layerOf } from "./layer";
import { Opener } from "./open_study";
import { mountPlaceLine } from "./place_line";
import { WorkPointer } from "./pointer";
import { Proposals } from "./proposals";
import type { Session } from "./session";
import { mountStructure } from "./structure_panel";
import { mountToolbar } from "./toolbar";
import { boxOf } from "./voxels";

const SMALLEST_MM = 0.5;
const LARGEST_MM = 40;

/** Everything that exists for one open study. */
interface Desk {
  session: Session;
  clicks: Clicks;
  decisions: Decisions;
  proposals: Proposals;
  pointer: WorkPointer;
}

export function mountWork(app: App, viewer: Viewer): void {
  let desk: Desk | null = null;
  const { store } = app;

  const refresh = (): void => {
    if (!desk) return;
    viewer.layer = layerOf(desk.session, desk.pointer);
    viewer.redraw();
  };

  const opener = new Opener(app, viewer, (session) => {
    if (desk) close(desk);
    viewer.pointer = null;
    desk = session && set(session);
    if (!desk) return;
    viewer.pointer = desk.pointer;
    refresh();
    desk.clicks.sendUnsent();
    void tellWorking(desk.session);
    if (store.state.project?.models.automatic || desk.session.study.proposal) void desk.proposals.make(false);
  });

  const set = (session: Session): Desk => {
    const clicks = new Clicks(session);
    return {
      session,
      clicks,
      decisions: new Decisions(session, clicks),
      proposals: new Proposals(session),
      pointer: new WorkPointer(session, clicks, refresh),
    };
  };

  app.open = (id) => opener.open(id);
  store.watch(({ work, activeLabel, tool, brush }) => [work, activeLabel, tool, brush], refresh);
  keepWhatIsUnsaved(app, () => desk?.session ?? null);
  store.watch(({ reached }) => reached, (reached) => reached && desk?.clicks.sendUnsent());
  store.watch(({ tool }) => tool, (tool) => (viewer.stage.dataset.tool = tool));

  defineActions(app, viewer, () => desk);
  mountStructure(app, () => desk?.session ?? null);
  mountToolbar(app, viewer);
  mountPlaceLine(viewer);
  mountHook(app, viewer, () => desk?.session ?? null);
}

function close({ session }: Desk): void {
  keep(session);
  session.closed.abort();
  const { app, study, user } = session;
  if (app.store.state.me?.may.store) app.api.notWorking(study.id, user).catch(() => {});
}

async function tellWorking({ app, study, user }: Session): Promise<void> {
  if (!app.store.state.me?.may.store) return;
  await app.api.working(study.id, user).catch((error) => {
    if (!(error instanceof Away)) console.warn(error);
  });
}

/** Store soon after each change, and when the page is left. */
function keepWhatIsUnsaved(app: App, session: () => Session | null): void {
  let timer = 0;
  const now = (): void => {
    const open = session();
    if (open) keep(open);
  };
  app.store.watch(({ work, maskRevision }) => [work, maskRevision], () => {
    clearTimeout(timer);
    timer = window.setTimeout(now, 300);
  });
  window.addEventListener("pagehide", now);
  document.addEventListener("visibilitychange", () => document.hidden && now());
}

function defineActions(app: App, viewer: Viewer, desk: () => Desk | null): void {
  const { store } = app;
  app.define("undo", () => step(app, desk(), "undo"));
  app.define("redo", () => step(app, desk(), "redo"));
  app.define("deletePoint", () => desk()?.clicks.deleteHoveredOrLast());
  app.define("clear", () => desk()?.clicks.clear());
  app.define("place", () => desk()?.clicks.place(viewer.crosshair, "in"));
  app.define("placeOut", () => desk()?.clicks.place(viewer.crosshair, "out"));
  app.define("accept", () => desk()?.decisions.accept());
  app.define("takeBack", () => desk()?.decisions.takeBack());
  app.define("absent", () => desk()?.decisions.absent());
  app.define("skip", () => (store.state.study?.skip ? desk()?.decisions.unskip() : desk()?.decisions.skip()));
  app.define("propose", () => desk()?.proposals.make(true));
  app.define("reject", () => desk()?.proposals.reject());
  app.define("next", () => next(app));
  app.define("points", () => store.set({ tool: "points" }));
  app.define("brush", () => store.set({ tool: "brush" }));
  app.define("eraser", () => store.set({ tool: "eraser" }));
  app.define("ball", () => store.set({ brush: { ...store.state.brush, ball: !store.state.brush.ball } }));
  const resize = (factor: number): void => {
    const radius_mm = Math.min(Math.max(store.state.brush.radius_mm * factor, SMALLEST_MM), LARGEST_MM);
    store.set({ brush: { ...store.state.brush, radius_mm } });
  };
  app.define("brushSmaller", () => resize(0.8));
  app.define("brushLarger", () => resize(1.25));
  app.define("fillBetween", () => fill(desk()?.session, viewer));
  app.define("label", (number) => {
    const label = store.state.project?.labels[Number(number) - 1];
    if (label && desk()) store.set({ activeLabel: label });
  });
  const turn = (by: number): void => {
    const labels = store.state.project?.labels ?? [];
    const at = labels.indexOf(store.state.activeLabel) + by;
    if (labels.length) store.set({ activeLabel: labels[(at + labels.length) % labels.length]! });
  };
  app.define("nextLabel", () => turn(1));
  app.define("previousLabel", () => turn(-1));
  app.define("centre", () => {
    const session = desk()?.session;
    const box = session && boxOf(session.work(session.active).foreground);
    if (box) viewer.moveTo(box.low.map((low, axis) => (low + box.high[axis]!) / 2) as never);
  });
}

function step(app: App, desk: Desk | null, way: "undo" | "redo"): void {
  if (!desk) return;
  desk.clicks.abort(desk.session.active);
  const done = way === "undo" ? desk.session.undo() : desk.session.redo();
  if (way === "undo") app.say(done ? text.said.undone : text.said.nothingToUndo);
  else app.say(done ? text.said.redone : text.said.nothingToRedo);
  if (done) desk.clicks.sendUnsent();
}

function fill(session: Session | undefined, viewer: Viewer): void {
  if (!session) return;
  const recorder = session.map.record();
  const { through } = planeAxes(session.scan, viewer.plane, true);
  const filled = fillBetween(session.map, recorder, session.scan, session.valueOf(session.active), through);
  const change = recorder.end();
  if (change.voxels.length) session.edit(session.active, { source: "drawn", overlaps: false }, [change]);
  session.app.say(filled ? text.said.filled(filled) : text.said.nothingToFill);
}

/** Open the study that the strategy chooses. */
async function next(app: App): Promise<void> {
  const { project, strategy, user, study } = app.store.state;
  if (!project) return;
  try {
    const { id } = await app.api.next(strategy || project.default_strategy, user ?? "");
    if (!id) app.say(text.said.noneLeft, "success");
    else if (id !== study?.id) await app.open(id);
    else app.say(text.said.sameAgain);
  } catch (error) {
    app.say(error instanceof Error ? error.message : String(error), "error");
  }
}
