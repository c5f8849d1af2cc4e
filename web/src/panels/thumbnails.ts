// Thumbnails of studies: few requests at a time, visible ones first, each requested once.

import type { Api } from "../api";

const AT_ONCE = 2;
const MOST_KEPT = 400;

export class Thumbnails {
  private readonly kept = new Map<string, string>();
  private readonly missing = new Set<string>();
  private readonly asked = new Set<string>();
  private wanted: string[] = [];

  /** `loaded` is called for each thumbnail. */
  constructor(
    private readonly api: Api,
    private readonly loaded: (id: string, url: string) => void,
  ) {}

  /** Return the address of a thumbnail; null until it is loaded. */
  url(id: string): string | null {
    return this.kept.get(id) ?? null;
  }

  /** Set the visible studies; requests for others are dropped. */
  want(ids: string[]): void {
    this.wanted = ids.filter((id) => !this.kept.has(id) && !this.missing.has(id));
    this.work();
  }

  /** Try again: the study was opened, or the server answers again. */
  retry(id?: string): void {
    if (id === undefined) this.missing.clear();
    else this.missing.delete(id);
  }

  private work(): void {
    while (this.asked.size < AT_ONCE) {
      const id = this.wanted.find((one) => !this.asked.has(one));
      if (id === undefined) return;
      this.wanted = this.wanted.filter((one) => one !== id);
      this.asked.add(id);
      void this.ask(id);
    }
  }

  private async ask(id: string): Promise<void> {
    try {
      this.keep(id, URL.createObjectURL(await this.api.thumbnail(id)));
    } catch {
      this.missing.add(id);
    }
    this.asked.delete(id);
    this.work();
  }

  private keep(id: string, url: string): void {
    if (this.kept.size >= MOST_KEPT) {
      const [oldest, old] = this.kept.entries().next().value!;
      URL.revokeObjectURL(old);
      this.kept.delete(oldest);
    }
    this.kept.set(id, url);
    this.loaded(id, url);
  }
}
