// Versions of the model, with a button to publish an earlier one.

import type { ModelVersion } from "../api";
import type { App } from "../app";
import { element } from "../dom";
import { text } from "../text";
import type { Connection } from "./connection";
import { confirm } from "./dialogs";
import { report } from "./report";
import { dateOf } from "./times";

const words = text.panels.training;
const SHOWN = 4;
let showsAll = false;

export function versions(app: App, connection: Connection): HTMLElement[] {
  const { models, me } = app.store.state;
  if (!models?.versions.length) return [];
  const shown = showsAll ? models.versions : models.versions.slice(0, SHOWN);
  const hidden = models.versions.length - shown.length;
  const list = element("ol", {}, ...shown.map((version) => row(app, connection, version, me?.may.train ?? false)));
  const all = element("button", {
    class: "plain",
    onclick: () => {
      showsAll = true;
      app.store.set({ models: { ...models } });
    },
  }, words.showAll(models.versions.length));
  return [element("h3", {}, words.versions), list, ...(hidden ? [all] : [])];
}

function row(app: App, connection: Connection, version: ModelVersion, mayTrain: boolean): HTMLElement {
  const figures = [
    version.scans === null ? "" : words.scans(version.scans),
    version.dice === null ? "" : words.dice(version.dice.toFixed(2)),
  ].filter(Boolean).join(" · ");
  return element("li", { class: version.is_published ? "in-use" : "", title: version.sentence ?? "" },
    element("strong", {}, String(version.version)),
    element("span", {}, element("span", {}, dateOf(version.created)), element("span", { class: "quiet" }, figures)),
    version.is_published
      ? element("span", { class: "badge" }, words.inUse)
      : mayTrain && element("button", {
          title: words.useTitle(version.version), "aria-label": words.useTitle(version.version),
          onclick: () => void use(app, connection, version.version),
        }, words.use));
}

async function use(app: App, connection: Connection, version: number): Promise<void> {
  const published = app.store.state.models?.published ?? null;
  if (!(await confirm(words.confirmTitle(version), words.confirmText(version, published), words.confirmButton(version)))) {
    return;
  }
  const before = connection.expectVersion(version);
  try {
    const models = await app.api.publish(version);
    app.store.set({ models });
    app.toast(words.used(version), "success");
    await app.refreshStudies();
  } catch (error) {
    connection.expectVersion(before);
    report(app, error);
    connection.refreshTraining();
  }
}
