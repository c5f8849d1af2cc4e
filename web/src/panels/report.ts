// Show errors of requests.

import { Away, Refusal } from "../api";
import type { App } from "../app";

/** Show an error as a notice, unless the banner shows it already. */
export function report(app: App, error: unknown): void {
  if (error instanceof Away || (error instanceof Refusal && error.status === 401)) return;
  app.toast(error instanceof Error ? error.message : String(error), "error");
}
