/** The statistics of a guest whose balloon QEMU serves: QEMU asks for them, and the daemon reads what came. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { QemuStats } from '../../protocol/qmp/balloon.js';
import { QmpError } from '../../protocol/qmp/error.js';
import { fromWall, msSince, monotonicNow, wallNow, type Monotonic, type WallMs } from '../os/clock.js';
import type { QemuBalloon } from './qemu.js';

/** Between two looks at statistics that are waited for. */
const AGAIN_MS = 50;
/** QEMU notes the time of statistics in whole seconds. */
const TICK_MS = 1000;

type AskedQemu = Pick<QemuBalloon, 'stats' | 'setInterval'> & {
  readonly fixed: { readonly foundInterval: number };
};

interface StatsListener {
  /** Other statistics came. */
  received(): void;
  /** QEMU answered, whatever it said; QEMU did not, or this is another error. */
  answered(): void;
  failed(error: unknown): void;
}

export class QmpStats {
  values: ReadonlyMap<string, number> | null = null;
  receivedAt: Monotonic | null = null;
  readonly #qemu: AskedQemu;
  readonly #listener: StatsListener;
  /** By QEMU; 0: none ever came. */
  #sentAtSeconds = 0;
  #arePast = false;
  #reading = false;
  /** Seconds; 0: never. */
  #wanted = 0;
  #left = false;

  constructor(qemu: AskedQemu, listener: StatsListener) {
    this.#qemu = qemu;
    this.#listener = listener;
  }

  /** QEMU is to ask so often; 0: as often as it was found to. An interval that was found and is shorter stays. */
  async every(seconds: number): Promise<void> {
    this.#wanted = seconds;
    if (!this.#left) await this.#qemu.setInterval(this.#inForce);
  }

  /** QEMU asks as it did before the daemon came. */
  async leave(): Promise<void> {
    this.#left = true;
    await this.#qemu.setInterval(this.#qemu.fixed.foundInterval);
  }

  /** Reads what QEMU has, unless a read is under way. */
  request(): void {
    this.#read().catch((error: unknown) => this.#listener.failed(error));
  }

  /** What the daemon before this one wrote down is QEMU's to say again. */
  resume(): void {
    return;
  }

  /** Has QEMU ask at once; resolves false when none came within `timeoutMs`. */
  async refresh(timeoutMs: number): Promise<boolean> {
    const begun = monotonicNow();
    try {
      await this.#read();
      const before = this.#sentAtSeconds;
      // Statistics of the same second would look the same.
      const wait = (before + 1) * TICK_MS - wallNow();
      if (wait > 0 && wait <= TICK_MS) await sleep(wait);
      await this.#qemu.setInterval(0);
      await this.#qemu.setInterval(this.#inForce || 1);
      while (this.#sentAtSeconds === before && msSince(begun) < timeoutMs) {
        await sleep(AGAIN_MS);
        await this.#read();
      }
      if (this.#inForce === 0) await this.#qemu.setInterval(0);
      return this.#sentAtSeconds !== before;
    } catch (error) {
      ignoreQmp(error);
      return false;
    }
  }

  /** Takes what QEMU said, if that is new. */
  take({ values, sentAtSeconds }: QemuStats): void {
    const isNew = sentAtSeconds !== 0 && sentAtSeconds !== this.#sentAtSeconds && !this.#arePast;
    this.#arePast = false;
    this.#sentAtSeconds = sentAtSeconds;
    if (!isNew) return;
    this.values = values;
    this.receivedAt = fromWall((sentAtSeconds * TICK_MS) as WallMs);
    this.#listener.received();
  }

  /** The guest was reset this moment: what QEMU has now is of the driver before. */
  clear(): void {
    this.values = null;
    this.#arePast = true;
    this.request();
  }

  get #inForce(): number {
    const { foundInterval } = this.#qemu.fixed;
    if (this.#wanted === 0 || foundInterval === 0) return this.#wanted || foundInterval;
    return Math.min(this.#wanted, foundInterval);
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      const stats = await this.#qemu.stats();
      this.#listener.answered();
      this.take(stats);
    } finally {
      this.#reading = false;
    }
  }
}

function ignoreQmp(error: unknown): void {
  if (!(error instanceof QmpError)) throw error;
}
