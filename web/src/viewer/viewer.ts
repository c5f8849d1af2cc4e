// The scan in three planes.

import type { App } from "../app";

export interface Viewer {}

export async function mountViewer(_app: App): Promise<Viewer> {
  return {};
}
