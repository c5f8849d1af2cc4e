// Status line at the bottom, which screen readers read out.

import type { App } from "./app";
import { byId } from "./dom";

export function mountStatus(app: App): void {
  const line = byId("status");
  app.store.watch(
    (state) => state.status,
    ({ text, kind }) => {
      line.textContent = text;
      line.className = kind;
    },
  );
}
