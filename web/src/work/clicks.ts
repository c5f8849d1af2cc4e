// Points of the active label: place, move, delete; from the sixth on, the server computes a mask.

import { Away, Refusal, type Answer, type Voxel } from "../api";
import type { LabelWork } from "../state";
import { text } from "../text";
import { gunzipped, readNifti } from "../viewer/nifti";
import { keyOfWork, type Session } from "./session";
import { same } from "./voxels";

export type Kind = "in" | "out";

export class Clicks {
  private asked = new Map<string, AbortController>();

  constructor(private readonly session: Session) {
    session.closed.signal.addEventListener("abort", () => this.asked.forEach((asked) => asked.abort()));
  }

  place(voxel: Voxel, kind: Kind): void {
    const { session } = this;
    const { foreground, background } = session.work(session.active);
    if ([...foreground, ...background].some((one) => same(one, voxel))) {
      session.app.say(text.said.samePoint, "error");
      return;
    }
    if (kind === "in") this.set(session.active, [...foreground, voxel], background);
    else this.set(session.active, foreground, [...background, voxel]);
    session.viewer.moveTo(voxel);
  }

  move(kind: Kind, index: number, voxel: Voxel): void {
    const { session } = this;
    const { foreground, background } = session.work(session.active);
    const put = (list: Voxel[]): Voxel[] => list.map((one, n) => (n === index ? voxel : one));
    if (kind === "in") this.set(session.active, put(foreground), background);
    else this.set(session.active, foreground, put(background));
  }

  delete(kind: Kind, index: number): void {
    const { session } = this;
    const { foreground, background } = session.work(session.active);
    const without = (list: Voxel[]): Voxel[] => list.filter((_, n) => n !== index);
    if (kind === "in") this.set(session.active, without(foreground), background);
    else this.set(session.active, foreground, without(background));
  }

  deleteHoveredOrLast(): void {
    const { session } = this;
    const work = session.work(session.active);
    const { hovered } = session;
    session.hovered = null;
    if (hovered?.label === session.active) this.delete(hovered.kind, hovered.index);
    else if (work.background.length) this.delete("out", work.background.length - 1);
    else if (work.foreground.length) this.delete("in", work.foreground.length - 1);
    else session.app.say(text.said.noPoint);
  }

  clear(): void {
    const { session } = this;
    this.abort(session.active);
    const change = session.map.clear(session.valueOf(session.active));
    session.edit(
      session.active,
      { foreground: [], background: [], source: "none", version: null, refusal: null, busy: false },
      [change],
    );
  }

  /** Apply one step: new points; with fewer than six the mask is removed. */
  private set(label: string, foreground: Voxel[], background: Voxel[]): void {
    const { session } = this;
    const isShort = foreground.length < 6;
    const goes = isShort && session.work(label).source === "clicks";
    session.edit(
      label,
      { foreground, background, refusal: null, ...(goes ? { source: "none", version: null } : {}) },
      goes ? [session.map.clear(session.valueOf(label))] : [],
    );
    if (isShort) this.abort(label);
    else void this.send(label);
  }

  /** Request the mask of the present clicks; an earlier request is aborted. */
  async send(label: string): Promise<void> {
    const { session } = this;
    const { app } = session;
    if (!app.store.state.me?.may.store) {
      app.say(text.said.noPermission, "error");
      return;
    }
    this.abort(label);
    const asked = new AbortController();
    this.asked.set(label, asked);
    const work = session.work(label);
    const key = keyOfWork(work);
    const params = { [label]: work.foreground, background: work.background, ...who(session.user) };
    session.update(label, { busy: true, refusal: null });
    try {
      const model = app.store.state.project!.models.clicks;
      const answer = await app.api.infer(model, session.study.id, params, asked.signal);
      const mask = await maskOf(answer);
      if (asked.signal.aborted) return;
      session.sent.set(label, key);
      this.show(label, mask, modelOf(answer));
    } catch (error) {
      if (asked.signal.aborted) return;
      session.update(label, { busy: false, refusal: error instanceof Refusal ? error.message : null });
      if (!(error instanceof Away)) app.say(error instanceof Error ? error.message : String(error), "error");
    } finally {
      if (this.asked.get(label) === asked) this.asked.delete(label);
    }
  }

  private show(label: string, mask: Uint8Array, model: Model): void {
    const { session } = this;
    const was = session.work(label);
    const { change, kept } = session.map.take(mask, session.valueOf(label));
    const stored = was.stored === "final" ? "final" : "clicked";
    const now = { source: "clicks", ...model, stored, overlaps: kept > 0, busy: false, refusal: null } as const;
    session.amend(label, now, [change]);
    const size = text.structure.volume(session.millilitres(label));
    session.app.say(was.source === "drawn" ? text.said.replaced : text.said.mask(label, size), "success");
  }

  /** Wait for the mask of the present clicks; request it if the server has other clicks. */
  async settle(label: string): Promise<void> {
    const { session } = this;
    if (this.asked.has(label)) await this.untilAnswered(label);
    else if (session.work(label).source === "clicks" && session.sent.get(label) !== keyOfWork(session.work(label)))
      await this.send(label);
  }

  private async untilAnswered(label: string): Promise<void> {
    while (this.asked.has(label)) await new Promise((done) => setTimeout(done, 50));
  }

  /** Send clicks that the server does not have, such as those placed while it was down. */
  sendUnsent(): void {
    const { session } = this;
    for (const label of session.labels) {
      const work = session.work(label);
      const isKnown = session.sent.get(label) === keyOfWork(work);
      if (work.foreground.length >= 6 && !isKnown && !work.busy && work.source !== "drawn")
        void this.send(label);
    }
  }

  abort(label: string): void {
    const asked = this.asked.get(label);
    asked?.abort();
    this.asked.delete(label);
    if (asked) this.session.update(label, { busy: false });
  }
}

export const who = (user: string): { client_id?: string } => (user ? { client_id: user } : {});

/** Return the label map of an answer. */
export function maskOf(answer: Answer): Promise<Uint8Array> {
  return maskIn(new Blob([answer.mask]).stream());
}

/** Return the voxels of a mask file (.nii.gz). */
export async function maskIn(file: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const { voxels } = readNifti(await gunzipped(file));
  return voxels instanceof Uint8Array ? voxels : Uint8Array.from(voxels);
}

export type Model = Pick<LabelWork, "version" | "sha256">;

/** Return the model that took part in an answer. */
export function modelOf({ params }: Answer): Model {
  const { model_version: version, model_sha256: sha256 } = params;
  return {
    version: typeof version === "number" ? version : null,
    sha256: typeof sha256 === "string" ? sha256 : null,
  };
}
