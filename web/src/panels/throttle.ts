// Call a function at most once an interval: at once, and again at the end of the interval if it was called meanwhile.

export class Throttle {
  private timer: number | undefined;
  private again = false;

  constructor(
    private readonly milliseconds: number,
    private readonly act: () => unknown,
  ) {}

  ask(): void {
    if (this.timer !== undefined) {
      this.again = true;
      return;
    }
    this.act();
    this.timer = window.setTimeout(() => {
      this.timer = undefined;
      if (!this.again) return;
      this.again = false;
      this.ask();
    }, this.milliseconds);
  }
}
