// What the parts of the page share: the store, the server, and the actions that keys and buttons call by name.

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

  /** The part that owns an action says what it does. */
  define(name: ActionName, action: Action): void {
    this.actions.set(name, action);
  }

  /** Does an action; one that nobody defined does nothing. `argument`: a label's number, a preset. */
  do(name: ActionName, argument?: string): void | Promise<void> {
    return this.actions.get(name)?.(argument);
  }

  can(name: ActionName): boolean {
    return this.actions.has(name);
  }

  /** A sentence for the line at the bottom. */
  say(text: string, kind: State["status"]["kind"] = "info"): void {
    this.store.set({ status: { text, kind } });
  }

  /** Opens a study by its id; defined by work/open_study.ts. */
  open: (id: string) => Promise<void> = async () => {};

  /** Reads the list of studies anew; defined by main.ts. */
  refreshStudies: () => Promise<void> = async () => {};

  /** Shows a short notice in a corner; defined by panels/toasts.ts. */
  toast: (text: string, kind?: "info" | "error" | "success") => void = (text, kind) => this.say(text, kind);

  /** Asks for one line of text in a dialog; null where it is cancelled. Defined by panels/dialogs.ts. */
  ask: (question: Question) => Promise<string | null> = async () => null;
}

export interface Question {
  title: string;
  text: string;
  label: string;
  value?: string;
  /** To choose from by a click; the field can still hold other text. */
  suggestions?: string[];
  button: string;
  /** What the other button says. */
  cancel?: string;
  longest?: number;
}
