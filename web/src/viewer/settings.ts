// Display settings, kept in this browser.

import type { App } from "../app";
import type { State } from "../state";

const KEY = "inextremis.view";
const KEPT = ["radiological", "outline", "opacity", "crosshair"] as const;

export function keepView(app: App): void {
  const kept = read();
  app.store.set({ view: { ...app.store.state.view, ...kept } });
  app.store.watch(
    ({ view }) => KEPT.map((name) => view[name]),
    (values) => {
      try {
        localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(KEPT.map((name, n) => [name, values[n]]))));
      } catch {
        // storage is full or forbidden: the settings hold for this page only
      }
    },
  );
}

function read(): Partial<State["view"]> {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    const { view } = { view: kept as Record<string, unknown> };
    const known: Record<string, unknown> = {};
    for (const name of ["radiological", "outline", "crosshair"]) if (typeof view[name] === "boolean") known[name] = view[name];
    if (typeof view.opacity === "number" && view.opacity >= 0 && view.opacity <= 1) known.opacity = view.opacity;
    return known;
  } catch {
    return {};
  }
}
