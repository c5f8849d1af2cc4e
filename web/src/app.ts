// What the parts of the page share: the store, the server, and named actions for keys and buttons.

import type { Api } from "./api";
import type { State, Store } from "./state";

export type ActionName =
  | "accept" | "takeBack" | "next" | "previousStudy" | "nextStudy" | "absent" | "skip" | "reject" | "propose" | "run"
  | "undo" | "redo" | "deletePoint" | "clear" | "nextLabel" | "previousLabel" | "label"
  | "points" | "brush" | "eraser" | "brushSmaller" | "brushLarger" | "ball" | "fillBetween"
  | "onePlane" | "sliceUp" | "sliceDown" | "zoomIn" | "zoomOut" | "fit"
  | "windowPreset" | "outline" | "masks" | "showPoints" | "crosshair" | "radiological" | "centre" | "moveCrosshair" | "place" | "placeOut"
  | "help" | "search" | "theme" | "train" | "name";

type Action = (argument?: string) => void | Promise<void>;

export class App {
  private actions = new Map<ActionName, Action>();

  constructor(
    readonly store: Store<State>,
    readonly api: Api,
  ) {}

  /** Define an action, in the module that implements it. */
  define(name: ActionName, action: Action): void {
    this.actions.set(name, action);
  }

  /** Run an action; an undefined one does nothing. `argument`: number of a label, or a preset. */
  do(name: ActionName, argument?: string): void | Promise<void> {
    return this.actions.get(name)?.(argument);
  }

  can(name: ActionName): boolean {
    return this.actions.has(name);
  }

  /** Show a sentence in the status line at the bottom. */
  say(text: string, kind: State["status"]["kind"] = "info"): void {
    this.store.set({ status: { text, kind } });
  }

  /** Open a study by its id; defined by work/open_study.ts. */
  open: (id: string) => Promise<void> = async () => {};

  /** Load the list of studies again; defined by main.ts. */
  refreshStudies: () => Promise<void> = async () => {};

  /** Show a short notice in a corner; defined by panels/toasts.ts. */
  toast: (text: string, kind?: "info" | "error" | "success") => void = (text, kind) => this.say(text, kind);

  /** Ask for a line of text in a dialog; null if cancelled. Defined by panels/dialogs.ts. */
  ask: (question: Question) => Promise<string | null> = async () => null;
}

export interface Question {
  title: string;
  text: string;
  label: string;
  value?: string;
  /** Suggestions; the field takes other text as well. */
  suggestions?: string[];
  button: string;
  /** Text of the cancel button. */
  cancel?: string;
  longest?: number;
}
