/** The statistics of a guest whose balloon QEMU serves: QEMU asks for them, and the daemon reads what came. */
import { setTimeout as sleep } from 'node:timers/promises';
import { VmmError, type AdoptedVmm, type VmmStats } from '../../protocol/adopted.js';
import { fromWall, msSince, monotonicNow, wallNow, type Monotonic, type WallMs } from '../os/clock.js';
import { inTurn } from './in-turn.js';

/** Between two looks at statistics that are waited for. */
const AGAIN_MS = 50;
/** QEMU notes the time of statistics in whole seconds. */
const TICK_MS = 1000;

type AskedVmm = Pick<AdoptedVmm, 'stats' | 'setInterval'>;

interface StatsListener {
  /** Other statistics came. */
  received(): void;
  /** QEMU answered, whatever it said; QEMU did not, or this is another error. */
  answered(): void;
  failed(error: unknown): void;
}

export class AdoptedStats {
  values: ReadonlyMap<string, number> | null = null;
  receivedAt: Monotonic | null = null;
  readonly #vmm: AskedVmm;
  readonly #foundInterval: number;
  readonly #listener: StatsListener;
  /** By QEMU; 0: none ever came. */
  #sentAtSeconds = 0;
  #arePast = false;
  #reading = false;
  /** Seconds; 0: never. */
  #wanted = 0;
  #left = false;

  /** `foundInterval`: seconds, 0 for none. */
  constructor(vmm: AskedVmm, foundInterval: number, listener: StatsListener) {
    this.#vmm = vmm;
    this.#foundInterval = foundInterval;
    this.#listener = listener;
  }

  /** QEMU is to ask so often; 0: as often as it was found to. An interval that was found and is shorter stays. */
  async every(seconds: number): Promise<void> {
    this.#wanted = seconds;
    if (!this.#left) await this.#vmm.setInterval(this.#inForce);
  }

  /** QEMU asks as it did before the daemon came. */
  async leave(): Promise<void> {
    this.#left = true;
    await this.#vmm.setInterval(this.#foundInterval);
  }

  /** Reads what QEMU has when its turn comes, unless a read is under way. */
  request(): void {
    inTurn(() => void this.#read().catch((error: unknown) => this.#listener.failed(error)));
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
      await this.#vmm.setInterval(0);
      await this.#vmm.setInterval(this.#inForce || 1);
      while (this.#sentAtSeconds === before && msSince(begun) < timeoutMs) {
        await sleep(AGAIN_MS);
        await this.#read();
      }
      if (this.#inForce === 0) await this.#vmm.setInterval(0);
      return this.#sentAtSeconds !== before;
    } catch (error) {
      ignoreVmm(error);
      return false;
    }
  }

  /** Takes what QEMU said, if that is new. */
  take({ values, sentAtSeconds }: VmmStats): void {
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
    const found = this.#foundInterval;
    if (this.#wanted === 0 || found === 0) return this.#wanted || found;
    return Math.min(this.#wanted, found);
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      const stats = await this.#vmm.stats();
      this.#listener.answered();
      this.take(stats);
    } finally {
      this.#reading = false;
    }
  }
}

function ignoreVmm(error: unknown): void {
  if (!(error instanceof VmmError)) throw error;
}
