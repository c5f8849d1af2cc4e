// Connection to the server: its events, and what to do while it is down or asks for a login.

import { Refusal, type Training } from "../api";
import type { App } from "../app";
import { text } from "../text";
import { Throttle } from "./throttle";

const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 8000;
/** A hidden tab closes its stream after this time; the server limits the number of streams. */
const HIDDEN_MS = 60_000;

export class Connection {
  private source: EventSource | null = null;
  private retry_ms = FIRST_RETRY_MS;
  private retryTimer: number | undefined;
  private hiddenTimer: number | undefined;
  private probing = false;
  /** Published version that the user knows of; undefined before the first answer. */
  private version: number | null | undefined;

  private readonly studies = new Throttle(1000, () => this.app.refreshStudies().catch(() => {}));
  private readonly training = new Throttle(2000, () => this.readTraining());
  private readonly models = new Throttle(2000, () => this.readModels());

  constructor(private readonly app: App) {}

  start(): void {
    const { app } = this;
    app.api.onExpired = () => {
      if (app.store.state.expired) return;
      app.store.set({ expired: true });
      this.disconnect();
    };
    app.store.watch((state) => state.reached, (reached) => {
      if (!reached) this.probeLater();
    });
    let wasRunning = false;
    app.store.watch((state) => state.training?.running ?? false, (isRunning) => {
      if (wasRunning && !isRunning) this.tellEnd(app.store.state.training!);
      wasRunning = isRunning;
    });
    window.addEventListener("focus", () => app.store.state.expired && void this.probe());
    window.addEventListener("online", () => void this.probe());
    document.addEventListener("visibilitychange", () => this.onVisibility());
    this.connect();
  }

  /** Check whether the server answers and knows the user, and act on the result. */
  async probe(): Promise<void> {
    if (this.probing) return;
    this.probing = true;
    window.clearTimeout(this.retryTimer);
    this.retryTimer = undefined;
    const { store } = this.app;
    const { reached, expired } = store.state;
    try {
      const me = await this.app.api.me();
      store.set({ me, expired: false, ...(me.asks_login ? { user: me.name } : {}) });
      if (!reached) this.tellBack();
      if (!reached || expired) this.connect();
      else this.later(() => this.connect());
    } catch (error) {
      if (!(error instanceof Refusal && error.status === 401)) this.probeLater();
    } finally {
      this.probing = false;
    }
  }

  /** Reload what the panels show, soon. */
  refreshTraining(): void {
    this.training.ask();
    this.models.ask();
  }

  private connect(): void {
    if (this.source || document.hidden) return;
    const source = (this.source = this.app.api.events());
    const on = (kind: string, does: (content: never) => void): void =>
      source.addEventListener(kind, (event) => does(JSON.parse((event as MessageEvent<string>).data) as never));
    on("hello", () => {
      this.retry_ms = FIRST_RETRY_MS;
      this.studies.ask();
      this.refreshTraining();
    });
    on("studies", () => this.studies.ask());
    on("model", (content: { version: number | null }) => {
      this.noteVersion(content.version);
      this.studies.ask();
      this.models.ask();
    });
    on("training", (content: Partial<Training>) => this.onTraining(content));
    source.addEventListener("error", () => {
      this.disconnect();
      void this.probe();
    });
  }

  private disconnect(): void {
    this.source?.close();
    this.source = null;
  }

  /** Note that the user publishes this version, so that no notice follows; returns the version before. */
  expectVersion(version: number | null | undefined): number | null | undefined {
    const before = this.version;
    this.version = version;
    return before;
  }

  private noteVersion(version: number | null): void {
    const before = this.version;
    this.version = version;
    if (before === undefined || version === null || version === before) return;
    const { newModel, otherModel } = text.panels.training;
    this.app.toast((version > (before ?? 0) ? newModel : otherModel)(version), "success");
  }

  private onTraining(content: Partial<Training>): void {
    const { store } = this.app;
    const before = store.state.training;
    if (!before) return this.training.ask();
    const now = { ...before, ...content };
    store.set({ training: now });
    if (before.epoch !== now.epoch || before.running !== now.running) this.refreshTraining();
  }

  private tellEnd({ error, sentence }: Training): void {
    const words = text.panels.training;
    if (error) this.app.toast(words.broke(error), "error");
    else this.app.toast(sentence ? words.ended(sentence) : words.stopped);
  }

  private tellBack(): void {
    const { app } = this;
    app.toast(text.back, "success");
    if (app.store.state.status.text === text.away) app.say("");
  }

  private async readTraining(): Promise<void> {
    const training = await this.app.api.training().catch(() => null);
    if (training) this.app.store.set({ training });
  }

  private async readModels(): Promise<void> {
    const models = await this.app.api.models().catch(() => null);
    if (!models) return;
    this.noteVersion(models.published);
    this.app.store.set({ models });
  }

  private onVisibility(): void {
    window.clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = window.setTimeout(() => this.disconnect(), HIDDEN_MS);
    } else if (this.app.store.state.expired || !this.app.store.state.reached) {
      void this.probe();
    } else this.connect();
  }

  private probeLater(): void {
    this.later(() => void this.probe());
  }

  private later(act: () => void): void {
    if (this.retryTimer !== undefined) return;
    this.retryTimer = window.setTimeout(() => {
      this.retryTimer = undefined;
      act();
    }, this.retry_ms);
    this.retry_ms = Math.min(2 * this.retry_ms, LONGEST_RETRY_MS);
  }
}
