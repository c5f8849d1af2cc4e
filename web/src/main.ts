// Assemble the page. Its parts know only the store, the server and each other's actions.

import "./style.css";
import "./viewer/viewer.css";
import "./work/work.css";
import { Api, Refusal } from "./api";
import { App } from "./app";
import { listenToKeys } from "./keys";
import { mountPanels } from "./panels/panels";
import { initialState, Store } from "./state";
import { mountStatus } from "./status";
import { mountViewer } from "./viewer/viewer";
import { mountWork } from "./work/work";

const app = new App(new Store(initialState), new Api());

app.refreshStudies = async () => {
  const { project, studies } = await app.api.studies(app.store.state.user ?? "");
  const { activeLabel } = app.store.state;
  app.store.set({ project, studies, activeLabel: activeLabel || (project.labels[0] ?? "") });
};

app.api.onReach = (reached) => {
  if (reached !== app.store.state.reached) app.store.set({ reached });
};

async function start(): Promise<void> {
  mountStatus(app);
  const viewer = await mountViewer(app);
  mountWork(app, viewer);
  mountPanels(app);
  listenToKeys(app);
  openWhatTheAddressNames();
  const me = await app.api.me();
  app.store.set({ me, user: me.name ?? app.store.state.user });
  await app.refreshStudies();
}

/** Run once the list of studies is loaded, which may wait for a server that is down, and at each change. */
function openWhatTheAddressNames(): void {
  const openIt = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const isThere = app.store.state.studies.some((study) => study.id === id);
    if (isThere && id !== app.store.state.study?.id) void app.open(id);
  };
  app.store.watch((state) => state.studies.length > 0, openIt);
  window.addEventListener("hashchange", openIt);
}

start().catch((error) => {
  app.say(error instanceof Refusal || error instanceof Error ? error.message : String(error), "error");
});
