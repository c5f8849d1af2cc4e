// Format dates and durations.

import { text } from "../text";

const DATE = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
});

/** Format "28 Nov 2026, 00:12" in local time; "" if it is no date. */
export function dateOf(iso: string | null): string {
  const date = new Date(iso ?? "");
  return Number.isNaN(date.getTime()) ? "" : DATE.format(date);
}

/** Format "about 4 min". */
export function duration(seconds: number): string {
  const minutes = Math.round(seconds / 60);
  if (seconds < 60) return text.panels.time.seconds;
  if (minutes < 60) return text.panels.time.minutes(minutes);
  return text.panels.time.hours(Math.floor(minutes / 60), minutes % 60);
}
