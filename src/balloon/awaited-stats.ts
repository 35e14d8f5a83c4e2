import type { Monotonic } from '../os/clock.js';

/** The last statistics of a driver, and who waits for others. */
export abstract class AwaitedStats {
  #waiting: (() => void)[] = [];
  values: ReadonlyMap<string, number> | null = null;
  /** When the values came; null: none ever did. */
  receivedAt: Monotonic | null = null;

  /** Asks for new statistics, unless the driver is at it already. */
  abstract request(): void;

  /** What a process that is gone was sent. */
  resume(values: ReadonlyMap<string, number>, receivedAt: Monotonic): void {
    this.values = values;
    this.receivedAt = receivedAt;
  }

  /** Asks for new statistics; resolves true when they came, false when they did not within `timeoutMs`. */
  refresh(timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const received = (): void => {
        clearTimeout(timer);
        resolve(true);
      };
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((waiting) => waiting !== received);
        resolve(false);
      }, timeoutMs);
      this.#waiting.push(received);
      this.request();
    });
  }

  /** Another driver will come: what is known is of the past. */
  clear(): void {
    this.values = null;
  }

  protected came(): void {
    for (const done of this.#waiting.splice(0)) done();
  }
}
