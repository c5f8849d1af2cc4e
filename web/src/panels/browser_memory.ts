// Values that this browser remembers between visits.

type Remembered = "inextremis.name" | "inextremis.theme" | "inextremis.strategy" | "inextremis.training";

/** null: never stored, or the browser stores nothing. */
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
    // storage is full or forbidden: the value holds for this page only
  }
}
