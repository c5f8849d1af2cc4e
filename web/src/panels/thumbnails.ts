// Pictures of studies: few at a time, those that are seen now first, each asked for once.

import type { Api } from "../api";

const AT_ONCE = 2;
const MOST_KEPT = 400;

export class Thumbnails {
  private readonly kept = new Map<string, string>();
  private readonly missing = new Set<string>();
  private readonly asked = new Set<string>();
  private wanted: string[] = [];

  /** `loaded` is told of each picture. */
  constructor(
    private readonly api: Api,
    private readonly loaded: (id: string, url: string) => void,
  ) {}

  /** The address of the picture; null while it is not there. */
  url(id: string): string | null {
    return this.kept.get(id) ?? null;
  }

  /** These are seen now; others need not be asked for any more. */
  want(ids: string[]): void {
    this.wanted = ids.filter((id) => !this.kept.has(id) && !this.missing.has(id));
    this.work();
  }

  /** It may be there now: it was opened, or the server is back. */
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
