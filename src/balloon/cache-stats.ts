import { monotonicNow, type Monotonic } from '../os/clock.js';

/** Statistics that the driver writes into the config space when it is asked to. */
export class CacheStats {
  readonly #ask: () => void;
  #waiting: (() => void)[] = [];
  values: ReadonlyMap<string, number> | null = null;
  /** When the values came; null: none ever did. */
  receivedAt: Monotonic | null = null;

  constructor(ask: () => void) {
    this.#ask = ask;
  }

  receive(totalBytes: number, freeBytes: number): void {
    this.values = new Map([
      ['VIRTIO_BALLOON_S_MEMFREE', freeBytes],
      ['VIRTIO_BALLOON_S_MEMTOT', totalBytes],
    ]);
    this.receivedAt = monotonicNow();
    for (const done of this.#waiting.splice(0)) done();
  }

  /** What a process that is gone was sent. */
  resume(values: ReadonlyMap<string, number>, receivedAt: Monotonic): void {
    this.values = values;
    this.receivedAt = receivedAt;
  }

  request(): void {
    this.#ask();
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
}
