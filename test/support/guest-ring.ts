// What the drivers' sides of both ring formats have in common: the eventfds, the count of calls, and waiting.
import { closeFd } from '../../src/os/fd.js';
import { createEventFd, drainEvent, signalEvent } from '../../src/os/eventfd.js';
import { Poller, READABLE } from '../../src/os/poller.js';
import { PATIENCE_MS, Signal } from './deadline.js';

export const F_INDIRECT_DESC = 28;
export const F_EVENT_IDX = 29;
export const F_VERSION_1 = 32;
export const F_RING_PACKED = 34;

/** Bytes of a descriptor, in both formats and in indirect tables. */
export const DESCRIPTOR_BYTES = 16;
/** Descriptor flags, common to both formats. */
export const DESC_NEXT = 0x1;
export const DESC_WRITE = 0x2;
export const DESC_INDIRECT = 0x4;

/** One buffer of a chain; `gpa` and `len` go into the descriptor unchecked. */
export interface ChainBuffer {
  gpa: number | bigint;
  len: number;
  writable?: boolean;
}

/** A chain that came back: the head (packed: the buffer id) and the bytes the device says it wrote. */
export interface Used {
  head: number;
  len: number;
}

export interface AddOptions {
  /** Puts the chain into an indirect table of this ring's own. */
  indirect?: boolean;
  /** false: the device sees the chain only after the next `publish` or `kick`. */
  publish?: boolean;
}

/** Where the three areas of a ring lie in guest memory. */
export interface RingAreas {
  descriptorGpa: number;
  /** Available ring; packed: driver event suppression. */
  driverGpa: number;
  /** Used ring; packed: device event suppression. */
  deviceGpa: number;
}

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** Whether an event at `event` is asked for when the index moves from `old` to `now`, all modulo 2^16. */
export function needsEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}

export abstract class GuestRing {
  abstract readonly size: number;
  abstract readonly areas: RingAreas;
  /** The first guest address after everything this ring uses. */
  abstract readonly endGpa: number;
  /** What SET_VRING_BASE says of a ring that was never used. */
  abstract readonly initialBase: number;
  /** The driver's kick. */
  readonly kickFd: number;
  /** The device's call. */
  readonly callFd: number;
  /** Called after each wake-up by the call eventfd. */
  onCall: (() => void) | null = null;

  readonly #called = new Signal();
  readonly #poller: Poller;
  readonly #collected: Used[] = [];
  #calls = 0;
  #closed = false;

  protected constructor() {
    this.kickFd = createEventFd();
    this.callFd = createEventFd();
    this.#poller = new Poller(this.callFd, READABLE, () => this.#takeCalls());
  }

  /** Offers a chain and returns its head (packed: its buffer id). */
  abstract add(chain: readonly ChainBuffer[], options?: AddOptions): number;
  /** Shows the device every chain added so far. */
  abstract publish(): void;
  /** Takes all chains that have come back; throws when one was never offered. */
  abstract collectUsed(): Used[];
  /** Chains that were offered and have not come back. */
  abstract readonly outstanding: number;
  /** Asks the device for a call at the next used chain. */
  abstract enableCalls(): void;
  /** Asks for none: VIRTQ_AVAIL_F_NO_INTERRUPT; packed: RING_EVENT_FLAGS_DISABLE. */
  abstract disableCalls(): void;
  protected abstract deviceWantsKick(): boolean;
  protected abstract releaseView(): void;

  /** Publishes, then kicks unless the device has suppressed it; `force` kicks anyway. True when it kicked. */
  kick(options: { force?: boolean } = {}): boolean {
    this.publish();
    const wanted = this.deviceWantsKick();
    if (!wanted && options.force !== true) return false;
    if (!signalEvent(this.kickFd)) throw new Error('the kick eventfd is full');
    return true;
  }

  /** How often the device has written the call eventfd so far. */
  get calls(): number {
    this.#takeCalls();
    return this.#calls;
  }

  /**
   * Collects until at least `count` chains have come back, and returns all that came. Between two looks it waits
   * for a call, so a device that forgets to call is found out.
   */
  async waitUsed(count: number, timeoutMs = PATIENCE_MS): Promise<Used[]> {
    const collected = this.#collected;
    const what = (): string => {
      const silent = this.collectUsed();
      const hint = silent.length > 0 ? `; ${silent.length} more came back without a call` : '';
      const text = `${collected.length} of ${count} chains came back, ${this.outstanding} are outstanding${hint}`;
      collected.push(...silent);
      return text;
    };
    await this.#called.until(
      () => {
        collected.push(...this.collectUsed());
        if (collected.length >= count) return true;
        this.enableCalls();
        collected.push(...this.collectUsed());
        return collected.length >= count ? true : null;
      },
      timeoutMs,
      what,
    );
    return collected.splice(0);
  }

  /** Resolves at the next wake-up by the call eventfd. */
  nextCall(): Promise<void> {
    return this.#called.next();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.close();
    closeFd(this.kickFd);
    closeFd(this.callFd);
    this.releaseView();
  }

  #takeCalls(): void {
    const news = this.#closed ? 0 : drainEvent(this.callFd);
    if (news === 0) return;
    this.#calls += news;
    this.#called.raise();
    this.onCall?.();
  }
}
