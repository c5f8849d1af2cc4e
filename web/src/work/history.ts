// Undo history: clicks and drawing on the labels of the open study.

import type { LabelWork } from "../state";
import type { Change } from "./label_map";

interface Entry {
  label: string;
  before: LabelWork;
  after: LabelWork;
  /** Changes of the label map, in order. */
  changes: Change[];
}

const MOST = 200;

export class History {
  private done: Entry[] = [];
  private undone: Entry[] = [];

  push(entry: Entry): void {
    this.done.push(entry);
    if (this.done.length > MOST) this.done.shift();
    this.undone = [];
  }

  /** Entry that undo would undo. */
  get last(): Entry | undefined {
    return this.done.at(-1);
  }

  undo(): Entry | undefined {
    const entry = this.done.pop();
    if (entry) this.undone.push(entry);
    return entry;
  }

  redo(): Entry | undefined {
    const entry = this.undone.pop();
    if (entry) this.done.push(entry);
    return entry;
  }

  get canUndo(): boolean {
    return this.done.length > 0;
  }

  get canRedo(): boolean {
    return this.undone.length > 0;
  }
}
