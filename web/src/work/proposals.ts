// Masks that the trained network proposes, for labels that nobody has answered.

import { Refusal } from "../api";
import { text } from "../text";
import { maskOf, modelOf, who, type Model } from "./clicks";
import type { Session } from "./session";

export class Proposals {
  private asked: AbortController | null = null;

  constructor(private readonly session: Session) {
    session.closed.signal.addEventListener("abort", () => this.asked?.abort());
  }

  /** Labels for which there is room for a proposal. What nobody has ever annotated, no model has learnt. */
  private get open(): string[] {
    const { studies } = this.session.app.store.state;
    const isLearnt = (label: string): boolean =>
      studies.some(({ labels }) => labels[label] === "clicked" || labels[label] === "final");
    return this.session.labels.filter(isLearnt).filter((label) => {
      const { stored, source, foreground, busy } = this.session.work(label);
      return (stored === "none" || label === this.session.active) && !busy && !foreground.length &&
        (source === "none" || source === "proposal");
    });
  }

  /** `asked`: by a key, so that it says why there is none. */
  async make(asked: boolean): Promise<void> {
    const { session } = this;
    const { app } = session;
    const model = app.store.state.project?.models.automatic;
    const labels = this.open;
    if (!model) {
      if (asked) app.say(text.said.noModel, "error");
      return;
    }
    if (!labels.length || this.asked) return;
    this.asked = new AbortController();
    const { signal } = this.asked;
    app.store.set({ proposing: true });
    try {
      const answer = await app.api.infer(model, session.study.id, who(session.user), signal);
      const mask = await maskOf(answer);
      // Clicks that came meanwhile go before it.
      if (!signal.aborted) this.show(mask, modelOf(answer), this.open.filter((label) => labels.includes(label)));
    } catch (error) {
      if (!signal.aborted && asked) app.say(error instanceof Error ? error.message : String(error), "error");
      else if (!(error instanceof Refusal) && !signal.aborted) console.warn(error);
    } finally {
      this.asked = null;
      app.store.set({ proposing: false });
    }
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
