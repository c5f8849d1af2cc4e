// List of studies. Only visible rows are in the document, so that thousands of studies are fast.

import type { StudyRow } from "../api";
import type { App } from "../app";
import { element, replace } from "../dom";
import { text } from "../text";
import { rowKey, studyRow } from "./study_row";
import { Thumbnails } from "./thumbnails";

const ROW_PX = 46;
const ROW_WITH_DETAIL_PX = 62;
/** Rows rendered above and below the visible ones. */
const SPARE = 4;

interface Drawn {
  key: string;
  element: HTMLElement;
}

export class StudyList {
  readonly element: HTMLElement;
  private readonly space = element("div", { class: "study-space", role: "presentation" });
  private readonly thumbnails: Thumbnails;
  private drawn = new Map<string, Drawn>();
  private studies: StudyRow[] = [];
  private height_px = ROW_PX;
  /** Study at the keyboard cursor. */
  private cursor: string | null = null;
  private frame = 0;

  constructor(private readonly app: App) {
    this.element = element("div", {
      id: "study-list", role: "listbox", tabindex: 0, "aria-label": text.panels.studies.heading,
      onscroll: () => this.drawSoon(),
      onclick: (event: MouseEvent) => this.onClick(event),
      onkeydown: (event: KeyboardEvent) => this.onKey(event),
    }, this.space);
    this.thumbnails = new Thumbnails(app.api, (id, url) => {
      const place = this.drawn.get(id)?.element.querySelector(".thumbnail");
      if (place) replace(place, element("img", { src: url, alt: "" }));
    });
    new ResizeObserver(() => this.drawSoon()).observe(this.element);
    app.store.watch(({ study, loading }) => study?.id ?? loading?.id ?? null, (id) => {
      if (id) {
        this.cursor = id;
        this.thumbnails.retry(id);
        this.reveal(id);
      }
      this.drawSoon();
    });
    app.store.watch((state) => state.reached, (reached) => reached && this.thumbnails.retry());
  }

  /** Studies that are shown. */
  get shown(): readonly StudyRow[] {
    return this.studies;
  }

  show(studies: StudyRow[]): void {
    this.studies = studies;
    const height_px = studies.some(({ name, detail }) => detail || name.includes(" · ")) ? ROW_WITH_DETAIL_PX : ROW_PX;
    if (height_px !== this.height_px) this.clear();
    this.height_px = height_px;
    this.element.hidden = studies.length === 0;
    this.element.classList.toggle("with-detail", height_px === ROW_WITH_DETAIL_PX);
    this.space.style.height = `${studies.length * height_px}px`;
    this.drawSoon();
  }

  /** Move the cursor to a row, and scroll to it. */
  moveTo(index: number): void {
    const study = this.studies[Math.min(Math.max(index, 0), this.studies.length - 1)];
    if (!study) return;
    this.cursor = study.id;
    this.reveal(study.id);
    this.draw();
  }

  /** Row of the cursor; -1 if its study is not shown. */
  get position(): number {
    return this.studies.findIndex((study) => study.id === this.cursor);
  }

  private onClick(event: MouseEvent): void {
    const id = (event.target as Element).closest<HTMLElement>(".study-row")?.dataset.id;
    if (id !== undefined) void this.app.open(id);
  }

  private onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.height_px) - 1);
    const { position } = this;
    const ways: Record<string, () => void> = {
      ArrowDown: () => this.moveTo(position + 1),
      ArrowUp: () => this.moveTo(position < 0 ? 0 : position - 1),
      PageDown: () => this.moveTo(position + page),
      PageUp: () => this.moveTo(position - page),
      Home: () => this.moveTo(0),
      End: () => this.moveTo(this.studies.length - 1),
      Enter: () => this.cursor !== null && position >= 0 && void this.app.open(this.cursor),
    };
    const way = ways[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    way();
  }

  private reveal(id: string): void {
    const index = this.studies.findIndex((study) => study.id === id);
    if (index < 0) return;
    const { scrollTop, clientHeight } = this.element;
    const top = index * this.height_px;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.height_px > scrollTop + clientHeight) {
      this.element.scrollTop = top + this.height_px - clientHeight;
    }
  }

  private drawSoon(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  private draw(): void {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.height_px) - SPARE);
    const last = Math.min(this.studies.length, Math.ceil((scrollTop + clientHeight) / this.height_px) + SPARE);
    const seen = this.studies.slice(first, last);
    const now = new Map<string, Drawn>();
    seen.forEach((study, n) => now.set(study.id, this.row(study, first + n)));
    for (const [id, { element: row }] of this.drawn) if (now.get(id)?.element !== row) row.remove();
    seen.forEach((study, n) => {
      const row = now.get(study.id)!.element;
      if (this.space.children[n] !== row) this.space.insertBefore(row, this.space.children[n] ?? null);
    });
    this.drawn = now;
    const active = this.cursor === null ? undefined : now.get(this.cursor)?.element;
    if (active) this.element.setAttribute("aria-activedescendant", active.id);
    else this.element.removeAttribute("aria-activedescendant");
    this.thumbnails.want(seen.filter(({ state }) => state !== "unreadable").map(({ id }) => id));
  }

  private row(study: StudyRow, index: number): Drawn {
    const key = rowKey(study);
    const before = this.drawn.get(study.id);
    const drawn = before?.key === key ? before : { key, element: studyRow(study, this.thumbnails.url(study.id)) };
    const { state } = this.app.store;
    const row = drawn.element;
    row.id = `study-row-${index}`;
    row.style.top = `${index * this.height_px}px`;
    row.setAttribute("aria-posinset", String(index + 1));
    row.setAttribute("aria-setsize", String(this.studies.length));
    row.setAttribute("aria-selected", String(study.id === (state.loading?.id ?? state.study?.id)));
    row.classList.toggle("at-cursor", study.id === this.cursor);
    return drawn;
  }

  private clear(): void {
    this.drawn.clear();
    replace(this.space);
  }
}
