// Mount the panels around the viewer.

import "./panels.css";
import type { App } from "../app";
import { mountBanner } from "./banner";
import { Connection } from "./connection";
import { mountDialogs } from "./dialogs";
import { mountKeysSheet } from "./keys_sheet";
import { mountStudies } from "./studies_panel";
import { mountToasts } from "./toasts";
import { mountTopbar } from "./topbar";
import { mountTraining } from "./training_panel";

export function mountPanels(app: App): void {
  mountDialogs(app);
  mountToasts(app);
  mountKeysSheet(app);
  mountTopbar(app);
  mountStudies(app);
  const connection = new Connection(app);
  mountBanner(app, () => void connection.probe());
  mountTraining(app, connection);
  connection.start();
}
