// Errors of requests, in words.

import { Away, Refusal } from "../api";
import type { App } from "../app";

/** Shows an error in a notice, except for what the banner says already. */
export function report(app: App, error: unknown): void {
  if (error instanceof Away || (error instanceof Refusal && error.status === 401)) return;
  app.toast(error instanceof Error ? error.message : String(error), "error");
}
