// Training panel: start, stop, progress, curves, result, versions.

import type { Training } from "../api";
import type { App } from "../app";
import { byId, element, replace } from "../dom";
import { text } from "../text";
import { recall, remember } from "./browser_memory";
import type { Connection } from "./connection";
import { curve, shortNumber } from "./curve";
import { report } from "./report";
import { duration } from "./times";
import { versions } from "./versions";

const words = text.panels.training;
/** Name of the app's trainer. */
const TRAINER = "inextremis";
/** In a low window the panel is closed at first, to leave room for the structure. */
const ROOMY_PX = 900;

export function mountTraining(app: App, connection: Connection): void {
  const section = byId("training");
  const brief = element("span", { class: "training-brief quiet" });
  const now = element("div", { class: "training-now" });
  const curves = element("div", { class: "curves" });
  const kept = element("div", { class: "versions" });
  const details = element("details", { open: isOpenAtFirst() },
    element("summary", {}, element("h2", {}, words.heading), brief), now, curves, kept);
  details.addEventListener("toggle", () => remember("inextremis.training", details.open ? "open" : "closed"));
  replace(section, details);

  app.define("train", () => start(app, connection));
  app.store.watch(({ project, me }) => [project?.review_only, me], () => {
    section.hidden = app.store.state.project?.review_only ?? false;
  });
  app.store.watch(({ training, models, me }) => [training, models, me], () => {
    const { training, models, me } = app.store.state;
    brief.textContent = briefly(training, models?.published ?? null);
    showNow(app, connection, now, training, me?.may.train ?? false);
    replace(kept, ...versions(app, connection));
  });
  const draw = (): void => {
    const { training } = app.store.state;
    replace(curves, ...(training ? curvesOf(training, curves.clientWidth) : []));
  };
  app.store.watch(
    ({ training }) => [training?.loss, training?.validation, training?.running, Boolean(training?.progress)], draw);
  let width = 0;
  new ResizeObserver(() => {
    if (curves.clientWidth !== width) draw();
    width = curves.clientWidth;
  }).observe(curves);
}

function isOpenAtFirst(): boolean {
  const kept = recall("inextremis.training");
  return kept === null ? window.innerHeight >= ROOMY_PX : kept === "open";
}

function briefly(training: Training | null, published: number | null): string {
  if (training?.running) {
    const left = training.remaining_s === null ? "" : ` · ${words.remaining(duration(training.remaining_s))}`;
    return words.running(Math.round(100 * training.progress)) + left;
  }
  return published === null ? words.noModel : words.version(published);
}

function showNow(app: App, connection: Connection, now: Element, training: Training | null, mayTrain: boolean): void {
  if (!training) return replace(now);
  if (training.running) {
    replace(now,
      element("div", { class: "training-run" },
        element("progress", { max: 1, value: training.progress || null, "aria-label": words.progress }),
        mayTrain && stopButton(app, connection)),
      !training.progress && element("p", { class: "quiet" }, words.starting));
    return;
  }
  replace(now,
    training.error !== null && element("p", { class: "error" }, words.failed(training.error)),
    training.error === null && training.sentence !== null &&
      element("p", {}, element("span", { class: "quiet" }, `${words.last}: `), training.sentence),
    training.error === null && training.sentence === null && element("p", { class: "quiet" }, words.idle),
    mayTrain
      ? element("button", { title: words.startTitle, onclick: () => void app.do("train") }, words.start)
      : element("p", { class: "quiet" }, words.mayNot));
}

function stopButton(app: App, connection: Connection): HTMLElement {
  const button = element("button", {
    title: words.stopTitle,
    onclick: async () => {
      button.disabled = true;
      button.textContent = words.stopping;
      await app.api.stopTraining().catch((error) => report(app, error));
      connection.refreshTraining();
    },
  }, words.stop);
  return button;
}

/** No curves while a training starts: they would be those of the last one. */
function curvesOf({ loss, validation, running, progress }: Training, width: number): HTMLElement[] {
  if (width < 100 || (running && !progress)) return [];
  const made: HTMLElement[] = [];
  for (const [name, kind, points, range] of [
    [words.loss, "loss", loss, null],
    [words.validation, "validation", validation, [0, 1]],
  ] as [string, string, [number, number][], [number, number] | null][]) {
    if (!points.length) continue;
    const [first, last] = [points[0]!, points[points.length - 1]!];
    const label = points.length > 1
      ? words.curve(name, shortNumber(first[1]), shortNumber(last[1]), String(last[0] - first[0]))
      : words.onePoint(name, shortNumber(last[1]));
    made.push(element("figure", {},
      element("figcaption", {}, name, element("strong", {}, shortNumber(last[1]))),
      curve(points, kind, width, range, { label, x: words.iterations })));
  }
  return made;
}

async function start(app: App, connection: Connection): Promise<void> {
  const { training, me, project } = app.store.state;
  if (!training || training.running || !me?.may.train || project?.review_only) return;
  try {
    await app.api.startTraining(TRAINER);
    app.toast(words.started);
    app.store.set({ training: { ...training, running: true, progress: 0, remaining_s: null, error: null, loss: [], validation: [] } });
  } catch (error) {
    report(app, error);
  }
  connection.refreshTraining();
}
