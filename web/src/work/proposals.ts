// Masks proposed by the trained network, for labels that nobody has annotated.

import { Refusal, type Study } from "../api";
import { text } from "../text";
import { maskIn, maskOf, modelOf, who, type Model } from "./clicks";
import type { Session } from "./session";

export class Proposals {
  private asked: AbortController | null = null;

  constructor(private readonly session: Session) {
    session.closed.signal.addEventListener("abort", () => this.asked?.abort());
  }

  /** Labels that a model may know: somebody has annotated them. */
  private get learnt(): string[] {
    const { studies } = this.session.app.store.state;
    return this.session.labels.filter((label) =>
      studies.some(({ labels }) => labels[label] === "clicked" || labels[label] === "final"));
  }

  /** Return those of these labels that can take a proposal. */
  private open(labels: string[]): string[] {
    return labels.filter((label) => {
      const { stored, source, foreground, busy } = this.session.work(label);
      return (stored === "none" || label === this.session.active) && !busy && !foreground.length &&
        (source === "none" || source === "proposal");
    });
  }

  /** `asked`: by a key; it then reports if there is none, and computes it again if one is stored. */
  async make(asked: boolean): Promise<void> {
    const { session } = this;
    const { app } = session;
    const model = app.store.state.project?.models.automatic ?? null;
    const stored = asked ? null : session.study.proposal;
    const labels = this.open(stored ? stored.labels : this.learnt);
    if (!model && !stored) {
      if (asked) app.say(text.said.noModel, "error");
      return;
    }
    if (!labels.length || this.asked) return;
    this.asked = new AbortController();
    const { signal } = this.asked;
    app.store.set({ proposing: true });
    try {
      const [mask, by] = stored ? await this.stored(stored, signal) : await this.made(model!, signal);
      // Clicks placed meanwhile take precedence.
      if (!signal.aborted) this.show(mask, by, this.open(labels));
    } catch (error) {
      if (!signal.aborted && asked) app.say(error instanceof Error ? error.message : String(error), "error");
      else if (!(error instanceof Refusal) && !signal.aborted) console.warn(error);
    } finally {
      this.asked = null;
      app.store.set({ proposing: false });
    }
  }

  private async made(model: string, signal: AbortSignal): Promise<[Uint8Array, Model]> {
    const { app, study, user } = this.session;
    const answer = await app.api.infer(model, study.id, who(user), signal);
    return [await maskOf(answer), modelOf(answer)];
  }

  private async stored(proposal: NonNullable<Study["proposal"]>, signal: AbortSignal): Promise<[Uint8Array, Model]> {
    const mask = await maskIn(await this.session.app.api.bytes(proposal.url, () => {}, signal));
    return [mask, { version: proposal.model_version, sha256: proposal.model_sha256 }];
  }

  private show(mask: Uint8Array, model: Model, labels: string[]): void {
    const { session } = this;
    for (const label of labels) {
      const { change, kept } = session.map.take(mask, session.valueOf(label));
      if (!session.map.count(session.valueOf(label))) continue;
      session.edit(label, { source: "proposal", ...model, overlaps: kept > 0 }, [change]);
    }
    const shown = labels.filter((label) => session.work(label).source === "proposal");
    session.app.say(shown.length ? text.said.proposed(shown.join(", "), model.version) : text.said.nothingProposed);
  }

  reject(): void {
    const { session } = this;
    this.asked?.abort();
    if (session.work(session.active).source !== "proposal") return;
    const change = session.map.clear(session.valueOf(session.active));
    session.edit(session.active, { source: "none", version: null }, [change]);
    session.app.say(text.said.rejected);
  }
}
