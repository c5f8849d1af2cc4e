// What this browser remembers between visits.

type Remembered = "inextremis.name" | "inextremis.theme" | "inextremis.strategy" | "inextremis.training";

/** null: never remembered, or the browser keeps nothing. */
export function recall(key: Remembered): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function remember(key: Remembered, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // no room, or not allowed: it holds for this page only
  }
}
