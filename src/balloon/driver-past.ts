import type { GuestMemory } from '../memory/guest-memory.js';
import type { Monotonic } from '../os/clock.js';
import { decodeState, encodeState, fillLedgers, type DeviceState } from './device-state.js';
import type { Beginning, DriverWords } from './driver-words.js';

/** The parts of a device that know something of its driver. */
interface Known {
  /** A name for the kind of device. */
  readonly kind: string;
  readonly memory: GuestMemory;
  readonly config: { numPages: number; actual: number; poisonVal?: number };
  readonly driver: DriverWords;
  /** The sizes of a page cache balloon that shares its device. */
  readonly cache?: { numPages: number; actual: number };
  /** Null: statistics are not worth keeping. */
  readonly stats: {
    readonly values: ReadonlyMap<string, number> | null;
    readonly receivedAt: Monotonic | null;
    resume(values: ReadonlyMap<string, number>, receivedAt: Monotonic): void;
  } | null;
}

/** What a driver was before its device starts: as it was when the device stopped, or as a VMM brings it from another process. */
export class DriverPast {
  readonly #of: Known;
  #loaded: DeviceState | null = null;

  constructor(of: Known) {
    this.#of = of;
  }

  /** All that another process needs to go on with the driver, of a device that is stopped. */
  save(): Uint8Array {
    if (this.#loaded !== null) return this.#loaded.bytes;
    const { kind, memory, config, driver, stats, cache } = this.#of;
    const { values = null, receivedAt = null } = stats ?? {};
    return encodeState(kind, memory, {
      numPages: config.numPages,
      actual: driver.isPaused ? driver.actual : config.actual,
      poisonVal: driver.isPaused ? driver.poisonVal : (config.poisonVal ?? 0),
      unknown: driver.unknown > 0,
      stats: values === null || receivedAt === null ? null : { values, receivedAt },
      ...(cache !== undefined && { cache: { numPages: cache.numPages, actual: cache.actual } }),
    });
  }

  /** The next start goes on from that. Throws StateError. */
  load(state: Uint8Array): void {
    this.#loaded = decodeState(this.#of.kind, state);
    this.#of.config.numPages = this.#loaded.numPages;
    const { cache } = this.#loaded;
    if (this.#of.cache !== undefined && cache !== undefined) this.#of.cache.numPages = cache.numPages;
  }

  /** The driver that starts; `resumed`: its rings go on. */
  beginning(resumed: boolean): Beginning {
    const { driver, config } = this.#of;
    if (this.#loaded === null) return driver.beginning(resumed, config.actual);
    return resumed && this.#loaded.unknown ? 'unknown' : 'new';
  }

  /**
   * What is known of the driver holds again. `tellsFirst`: pages that owed a discard owe it again. Returns whether the driver
   * may have another target than it knows.
   */
  goOn(beginning: Beginning, resumed: boolean, tellsFirst: boolean): boolean {
    const { memory, config, driver, stats } = this.#of;
    const loaded = this.#loaded;
    this.#loaded = null;
    if (loaded === null) {
      if (beginning === 'paused') {
        config.actual = driver.actual;
        if (config.poisonVal !== undefined) config.poisonVal = driver.poisonVal;
      }
      return beginning === 'unknown';
    }
    // Rings that were never used may be those of another driver, whose pages may be poisoned all the same.
    if (config.poisonVal === 0) config.poisonVal = loaded.poisonVal;
    if (resumed) {
      config.actual = loaded.actual;
      if (this.#of.cache !== undefined) this.#of.cache.actual = loaded.cache?.actual ?? 0;
      if (loaded.stats !== null) stats?.resume(loaded.stats.values, loaded.stats.receivedAt);
      fillLedgers(memory, loaded, tellsFirst);
    }
    return true;
  }
}
