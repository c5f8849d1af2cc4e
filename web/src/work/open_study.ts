// Open a study: its scan, final mask, clicks, and work kept in this browser.

import { Refusal, type Study } from "../api";
import type { App } from "../app";
import { text } from "../text";
import { gunzipped, readNifti } from "../viewer/nifti";
import { makeScan, type Scan } from "../viewer/scan";
import type { Viewer } from "../viewer/viewer";
import { maskOf, modelOf, who } from "./clicks";
import { keep, restoreKept } from "./kept";
import { keyOfWork, Session } from "./session";

export class Opener {
  private opening: AbortController | null = null;

  constructor(
    private readonly app: App,
    private readonly viewer: Viewer,
    /** Called with the study that is open from now on; null: none. */
    private readonly onOpen: (session: Session | null) => void,
  ) {}

  /** Close the open study first; opening another study aborts this. */
  async open(id: string): Promise<void> {
    const { app, viewer } = this;
    this.opening?.abort();
    const opening = (this.opening = new AbortController());
    const name = app.store.state.studies.find((study) => study.id === id)?.name ?? id;
    this.onOpen(null);
    viewer.show(null);
    app.store.set({ study: null, work: {}, failure: null, loading: { id, name, loaded: 0, bytes: 0 } });
    if (decodeURIComponent(location.hash.slice(1)) !== id) history.replaceState(null, "", `#${encodeURIComponent(id)}`);
    try {
      const study = await app.api.study(id);
      const scan = await this.load(study, opening.signal);
      if (opening.signal.aborted) return;
      const session = new Session(app, viewer, study, scan, app.store.state.project!.labels);
      await showFinal(session);
      const restored = restoreKept(session);
      await showStoredClicks(session);
      if (opening.signal.aborted) return;
      this.start(session, restored);
    } catch (error) {
      if (opening.signal.aborted) return;
      const why = error instanceof Error ? error.message : String(error);
      const sentence = error instanceof Refusal ? why : `${text.view.failed(name)} ${why}`;
      app.store.set({ loading: null, failure: { id, sentence } });
      app.say(sentence, "error");
    }
  }

  private async load(study: Study, signal: AbortSignal): Promise<Scan> {
    const { store, api } = this.app;
    const tell = (loaded: number, bytes: number): void => {
      const { loading } = store.state;
      if (loading && !signal.aborted) store.set({ loading: { ...loading, loaded, bytes } });
    };
    const stream = await api.bytes(study.volume.url, tell, signal);
    return makeScan(readNifti(await gunzipped(stream)), study.geometry);
  }

  private start(session: Session, restored: boolean): void {
    const { app, viewer } = this;
    const { labels } = session;
    viewer.show(session.scan);
    const open = labels.find((label) => !["final", "absent"].includes(session.work(label).stored)) ?? labels[0]!;
    app.store.set({ study: session.study, loading: null, activeLabel: open });
    this.onOpen(session);
    session.repaint();
    void app.do("centre");
    app.say(restored ? text.said.restored : text.said.opened(session.study.name));
    if (restored) keep(session);
  }
}

/** Put the labels of the final mask, if there is one, on the map. */
async function showFinal(session: Session): Promise<void> {
  const { final } = session.study;
  if (!final) return;
  const mask = readNifti(await gunzipped(await session.app.api.bytes(final.url, () => {})));
  const values = mask.voxels instanceof Uint8Array ? mask.voxels : Uint8Array.from(mask.voxels);
  for (const label of session.labels) {
    if (!final.labels.includes(label)) continue;
    session.map.take(values, session.valueOf(label));
    if (session.map.count(session.valueOf(label))) session.update(label, { source: "final" });
  }
}

/** Compute masks of stored clicks that are not accepted yet; the clicks are not stored again. */
async function showStoredClicks(session: Session): Promise<void> {
  const { app, study } = session;
  const open = session.labels.filter((label) => {
    const work = session.work(label);
    return work.stored === "clicked" && work.source === "none" && session.sent.get(label) === keyOfWork(work);
  });
  if (!open.length) return;
  try {
    const params = { use_stored_clicks: true, ...who(session.user) };
    const answer = await app.api.infer(app.store.state.project!.models.clicks, study.id, params, session.closed.signal);
    const mask = await maskOf(answer);
    for (const label of open) {
      const { kept } = session.map.take(mask, session.valueOf(label));
      session.update(label, { source: "clicks", ...modelOf(answer), overlaps: kept > 0 });
    }
  } catch (error) {
    // Show the clicks without a mask; the next click requests it again.
    app.say(error instanceof Error ? error.message : String(error), "error");
    for (const label of open) session.sent.delete(label);
  }
}
