// Annotating the open study.

import type { App } from "../app";
import type { Viewer } from "../viewer/viewer";

export function mountWork(_app: App, _viewer: Viewer): void {}
