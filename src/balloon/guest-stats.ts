import { decodeStats, STAT_BYTES } from '../../protocol/virtio/balloon.js';
import { DriverError } from '../memory/errors.js';
import { monotonicNow, type Monotonic } from '../os/clock.js';
import type { Chain } from '../virtqueue/chain.js';
import { AwaitedStats } from './awaited-stats.js';

/**
 * The statistics queue (virtio 1.3, 5.5.6.3): the driver hands over one buffer with its statistics, the device
 * keeps it, and giving it back is how it asks for new ones.
 */
export class GuestStats extends AwaitedStats {
  readonly #giveBack: (chain: Chain) => void;
  #held: Chain | null = null;
  /** The buffer that the values came in may be seen once more. */
  #resumed = false;

  constructor(giveBack: (chain: Chain) => void) {
    super();
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
    this.came();
  }

  override resume(values: ReadonlyMap<string, number>, receivedAt: Monotonic): void {
    super.resume(values, receivedAt);
    this.#resumed = true;
  }

  request(): void {
    const chain = this.#held;
    if (chain === null) return;
    this.#held = null;
    this.#giveBack(chain);
  }

  /** The ring was let go of: the buffer will be seen again. */
  forget(): void {
    this.#held = null;
  }

  override clear(): void {
    super.clear();
    this.#held = null;
  }
}
