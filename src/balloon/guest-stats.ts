import { decodeStats, STAT_BYTES } from '../../protocol/virtio/balloon.js';
import { DriverError } from '../memory/errors.js';
import { monotonicNow, type Monotonic } from '../os/clock.js';
import type { Chain } from '../virtqueue/chain.js';

/**
 * The statistics queue (virtio 1.3, 5.5.6.3): the driver hands over one buffer with its statistics, the device
 * keeps it, and giving it back is how it asks for new ones.
 */
export class GuestStats {
  readonly #giveBack: (chain: Chain) => void;
  #held: Chain | null = null;
  #waiting: (() => void)[] = [];
  values: ReadonlyMap<string, number> | null = null;
  /** When the values came; null: none ever did. */
  receivedAt: Monotonic | null = null;
  /** The buffer that the values came in may be seen once more. */
  #resumed = false;

  constructor(giveBack: (chain: Chain) => void) {
    this.#giveBack = giveBack;
  }

  /** Throws DriverError when `bytes` are not whole statistics. */
  receive(chain: Chain, bytes: Uint8Array): void {
    if (bytes.length % STAT_BYTES !== 0) {
      throw new DriverError(`statistics of ${bytes.length} bytes, not a multiple of ${STAT_BYTES}`);
    }
    if (this.#held !== null)
      throw new DriverError('the driver put a second buffer into the statistics queue');
    const values = decodeStats(bytes);
    const again =
      this.#resumed && [...(this.values ?? [])].every(([name, value]) => values.get(name) === value);
    this.#resumed = false;
    this.values = values;
    if (!again) this.receivedAt = monotonicNow();
    this.#held = chain;
    for (const done of this.#waiting.splice(0)) done();
  }

  /** What a process that is gone was sent. */
  resume(values: ReadonlyMap<string, number>, receivedAt: Monotonic): void {
    this.values = values;
    this.receivedAt = receivedAt;
    this.#resumed = true;
  }

  /** Asks for new statistics, unless the driver is at it already. */
  request(): void {
    const chain = this.#held;
    if (chain === null) return;
    this.#held = null;
    this.#giveBack(chain);
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

  /** The ring was let go of: the buffer will be seen again. */
  forget(): void {
    this.#held = null;
  }

  /** Another driver will come: what is known is of the past. */
  clear(): void {
    this.#held = null;
    this.values = null;
  }
}
