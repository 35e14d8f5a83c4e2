import type { HostPaths } from '../host/host-paths.js';
import { HostMemory, type HostReading } from '../host/meminfo.js';
import type { PressureTrigger } from '../host/pressure.js';
import { GOAL_MARGIN } from '../policy/facts.js';
import type { PolicySettings } from '../policy/settings.js';
import type { StockView } from './stock.js';
import { messageOf, type Troubles } from './troubles.js';

/** A reading of the room is good for so long. */
const ROOM_MS = 1000;

/** The policy looks sooner where so much of the memory beyond the reserve is gone, or so much of the reserve. */
const FALL_SHARE = 1 / 2;
const FALL_IN_RESERVE_SHARE = 1 / 16;

/** Memory that can be given, less the memory that was given of it. */
export interface Room {
  bytes: number;
}

/** The memory of the host, or the part of it that VMs may have. */
export class HostView implements StockView {
  readonly #host: HostMemory;
  readonly #troubles: Troubles;
  readonly #usedBytes: () => number;
  #last: HostReading | null = null;
  /** The reading that the policy decided by. */
  #decided: HostReading | null = null;
  #isPart = false;
  #room: Room = { bytes: 0 };
  #roomAt = -Infinity;

  /** `usedBytes` says how much of the host's RAM the guests take up. */
  constructor({ proc }: HostPaths, troubles: Troubles, usedBytes: () => number) {
    this.#host = new HostMemory(proc);
    this.#troubles = troubles;
    this.#usedBytes = usedBytes;
  }

  /** The reading of the last look; null: the host could not be read since the daemon began. */
  get last(): HostReading | null {
    return this.#last;
  }

  /** VMs may have a part of the host's memory only, which is then what a reading tells of, or all of it. */
  get kind(): 'host' | 'part of host' {
    return this.#isPart ? 'part of host' : 'host';
  }

  /** Reads the host. Null: it cannot be read, which is told. */
  look(settings: PolicySettings): HostReading | null {
    try {
      const read = this.#host.read();
      const misfit = settings.misfit(read.totalBytes);
      if (misfit !== null) this.#troubles.tell('misfit', misfit);
      const totalBytes = settings.memoryBytes(read.totalBytes);
      this.#isPart = totalBytes < read.totalBytes;
      this.#last = this.#isPart ? partOf(read, totalBytes, this.#usedBytes()) : read;
      return this.#last;
    } catch (error) {
      const why = messageOf(error);
      this.#troubles.tell(
        'host',
        `the policy does nothing, because the host's memory cannot be read: ${why}`,
      );
      return null;
    }
  }

  /** The policy decides by the reading of the last look. */
  decided(): void {
    this.#decided = this.#last;
  }

  /**
   * The host lost so much of its memory since the policy decided that the reserve may be gone before it decides again. It costs
   * one look at the host alone: VMs cannot have grown by more than the host lost.
   */
  falls(settings: PolicySettings): boolean {
    if (this.#decided === null) return false;
    const { availableBytes, beyondBytes = 0 } = this.#decided;
    const reserve = reserveOf(this.#decided, settings);
    const enough = Math.max(FALL_SHARE * (availableBytes - reserve), FALL_IN_RESERVE_SHARE * reserve);
    try {
      return availableBytes + beyondBytes - this.#host.availableBytes() > enough;
    } catch {
      // The next look tells of it.
      return false;
    }
  }

  /** The memory beyond the reserve and its margin, less the memory that was given of it. It is read anew each second. */
  room(settings: PolicySettings): Room {
    if (performance.now() - this.#roomAt < ROOM_MS) return this.#room;
    this.#roomAt = performance.now();
    const host = this.look(settings);
    if (host === null) return (this.#room = { bytes: 0 });
    const goal = reserveOf(host, settings) * (1 + GOAL_MARGIN);
    return (this.#room = { bytes: host.availableBytes - goal });
  }

  /** Calls back when tasks of the host wait for memory. Null: that cannot be waited for, which is told. */
  watchPressure(onPressure: () => void): PressureTrigger | null {
    try {
      return this.#host.watchPressure(onPressure);
    } catch (error) {
      const why = messageOf(error);
      this.#troubles.tell(
        'psi',
        `the policy looks by time alone, because it cannot wait for memory pressure: ${why}`,
      );
      return null;
    }
  }
}

function reserveOf({ totalBytes }: HostReading, settings: PolicySettings): number {
  return settings.config(totalBytes).reserveShare * totalBytes;
}

/** The memory that VMs may have and do not use is available to them, as far as the host can give it. */
function partOf(read: HostReading, totalBytes: number, usedBytes: number): HostReading {
  const availableBytes = Math.max(0, Math.min(read.availableBytes, totalBytes - usedBytes));
  return { ...read, totalBytes, availableBytes, beyondBytes: read.availableBytes - availableBytes };
}
