// Decisions about a label or a study: accept, undo accept, not in this scan, skip.

import { text } from "../text";
import { gzipped, writeNifti } from "../viewer/nifti";
import { who, type Clicks } from "./clicks";
import type { Session } from "./session";

export class Decisions {
  private deciding = false;

  constructor(
    private readonly session: Session,
    private readonly clicks: Clicks,
  ) {}

  /** Make the shown mask of the active label final. */
  accept(): Promise<void> {
    return this.once(async () => {
      const { session } = this;
      const label = session.active;
      await this.clicks.settle(label);
      const { source, overlaps, foreground, refusal } = session.work(label);
      if (source === "final") return this.goOn(label);
      if (source === "none") return session.app.say(refusal ?? text.said.noMask, "error");
      // The server has the mask of clicks; a drawn or proposed one, or one cut by other labels, is uploaded.
      const answer =
        source === "clicks" && !overlaps
          ? await session.app.api.accept(session.study.id, [label], session.user)
          : await this.submit(label);
      session.update(label, { source: "final", stored: "final", refusal: null });
      if (foreground.length) session.sent.set(label, JSON.stringify([foreground, session.work(label).background]));
      session.app.say(answer.warning ?? text.said.accepted(label), answer.warning ? "info" : "success");
      this.goOn(label);
      await session.app.refreshStudies();
    });
  }

  private async submit(label: string): Promise<{ warning?: string }> {
    const { session } = this;
    const { source, version, sha256, overlaps } = session.work(label);
    const value = session.valueOf(label);
    const file = writeNifti(session.map.only(value), session.scan.shape, session.scan.affine);
    const params = {
      ...who(session.user),
      labels: [label],
      ...(source === "proposal" && !overlaps ? { proposal: { model_version: version, model_sha256: sha256 } } : {}),
    };
    return session.app.api.submit(session.study.id, await gzipped(file), params);
  }

  /** Go to the next unfinished label; report if there is none. */
  private goOn(label: string): void {
    const { session } = this;
    const isAnswered = (one: string): boolean => ["final", "absent"].includes(session.work(one).stored);
    const at = session.labels.indexOf(label);
    const next = [...session.labels.slice(at + 1), ...session.labels.slice(0, at)].find((one) => !isAnswered(one));
    if (next) session.app.store.set({ activeLabel: next });
    else session.app.say(text.said.acceptedAll(session.study.name), "success");
  }

  takeBack(): Promise<void> {
    return this.once(async () => {
      const { session } = this;
      await session.app.api.takeBack(session.study.id, session.user);
      await session.app.refreshStudies();
      session.app.say(text.said.takenBack, "success");
      await session.app.open(session.study.id);
    });
  }

  absent(): Promise<void> {
    return this.once(async () => {
      const { session } = this;
      const label = session.active;
      this.clicks.abort(label);
      const model = session.app.store.state.project!.models.clicks;
      await session.app.api.tell(model, session.study.id, { absent: [label], ...who(session.user) });
      const change = session.map.clear(session.valueOf(label));
      session.edit(label, { foreground: [], background: [], source: "none", version: null, refusal: null }, [change]);
      session.update(label, { stored: "absent" });
      session.sent.delete(label);
      session.app.say(text.said.absent(label), "success");
      this.goOn(label);
      await session.app.refreshStudies();
    });
  }

  skip(): Promise<void> {
    return this.once(async () => {
      const { session } = this;
      const { app, study } = session;
      const reason = await app.ask({
        title: text.dialogs.skipTitle,
        text: text.dialogs.skipText,
        label: text.dialogs.skipLabel,
        suggestions: text.dialogs.skipReasons,
        button: text.dialogs.skipButton,
        longest: 200,
      });
      if (reason === null) return;
      const skip = await app.api.skip(study.id, reason, session.user);
      app.store.set({ study: { ...study, skip } });
      app.say(text.said.skipped(study.name), "success");
      await app.refreshStudies();
    });
  }

  unskip(): Promise<void> {
    return this.once(async () => {
      const { app, study } = this.session;
      await app.api.unskip(study.id, this.session.user);
      app.store.set({ study: { ...study, skip: null } });
      app.say(text.said.unskipped(study.name), "success");
      await app.refreshStudies();
    });
  }

  /** Run one decision at a time; show a refusal. */
  private async once(decide: () => Promise<void> | void): Promise<void> {
    const { app } = this.session;
    if (!app.store.state.me?.may.store) return app.say(text.said.noPermission, "error");
    if (this.deciding) return;
    this.deciding = true;
    app.store.set({ deciding: true });
    try {
      await decide();
    } catch (error) {
      app.say(error instanceof Error ? error.message : String(error), "error");
    } finally {
      this.deciding = false;
      app.store.set({ deciding: false });
    }
  }
}
