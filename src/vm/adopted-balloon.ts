/**
 * The target and the size of a balloon that QEMU serves. QEMU says its size (BALLOON_CHANGE, once a second at most) and does not
 * say its target: until the daemon sets one, the target is the size that was found. Sizes are in bytes.
 */
import { VmmError, type AdoptedVmm, type VmmLook } from '../../protocol/adopted.js';
import { BALLOON_PAGE_BYTES } from '../../protocol/virtio/balloon.js';
import { msSince, monotonicNow, type Monotonic } from '../os/clock.js';
import { Progress } from './progress.js';

/** A balloon that moves is looked at so often, until it was still for so long: QEMU tells of it once a second. */
const LOOK_MS = 100;
const STILL_MS = 3000;
/** QEMU tells of a size as much as a second after the guest said it: so long after a reset, it may tell of the last one before. */
const LATE_MS = 1500;

type MovedVmm = Pick<AdoptedVmm, 'setGuest' | 'guestBytes'>;

interface BalloonWatcher {
  /** The guest says another size; `isThere`: it is at its target now, and was not before. */
  actualChanged(isThere: boolean): void;
  /** QEMU took a command, or answered one. */
  answered(): void;
  failed(error: VmmError): void;
}

export class AdoptedBalloon {
  readonly progress = new Progress();
  /** Bytes that went in or out of the balloon, as far as was seen. */
  passedBytes = 0;
  readonly #vmm: MovedVmm;
  readonly #watcher: BalloonWatcher;
  #ramBytes = 0;
  #targetBytes = 0;
  #actualBytes = 0;
  /** The daemon set the target. */
  #ordered = false;
  /** What QEMU says since a reset, as it said before: its guest has yet to say another size, and holds nothing. */
  #staleBytes: number | null = null;
  #resetAt: Monotonic | null = null;
  #sending = false;
  /** The VMM did not take the last command. */
  #unsent = false;
  #again = false;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(vmm: MovedVmm, watcher: BalloonWatcher, found: Pick<VmmLook, 'ramBytes' | 'guestBytes'>) {
    this.#vmm = vmm;
    this.#watcher = watcher;
    this.#ramBytes = found.ramBytes;
    this.#actualBytes = this.#sizeOf(found.guestBytes);
    this.#targetBytes = this.#actualBytes;
    this.#begin();
  }

  get targetBytes(): number {
    return this.#targetBytes;
  }

  get actualBytes(): number {
    return this.#actualBytes;
  }

  /** Sets the target, in whole pages. */
  setTarget(bytes: number): void {
    const pages = Math.floor(Math.min(bytes, this.#ramBytes) / BALLOON_PAGE_BYTES) * BALLOON_PAGE_BYTES;
    if (this.#ordered && pages === this.#targetBytes) return;
    this.#ordered = true;
    this.#targetBytes = pages;
    this.#begin();
    this.#send();
  }

  /** Tells the guest again. */
  remind(): void {
    if (!this.#ordered) return;
    this.#begin();
    this.#send();
  }

  /** The VMM answers again after it did not: the guest has its time from now on, and is told what did not go out. */
  goOn(): void {
    this.progress.goOn();
    if (this.#unsent) this.remind();
    else this.#watch();
  }

  /** QEMU says how much memory the guest has without its balloon. `told`: because that changed. */
  sees(guestBytes: number, told: boolean): void {
    const isLate = this.#resetAt !== null && msSince(this.#resetAt) < LATE_MS;
    if ((!told || isLate) && guestBytes === this.#staleBytes) return;
    this.#staleBytes = null;
    const before = this.#actualBytes;
    this.#actualBytes = this.#sizeOf(guestBytes);
    if (this.#actualBytes === before) return;
    this.passedBytes += Math.abs(this.#actualBytes - before);
    if (!this.#ordered) {
      // Another program moves it.
      this.#targetBytes = this.#actualBytes;
      this.#begin();
    }
    this.#watcher.actualChanged(this.progress.move(this.#actualBytes));
    this.#watch();
  }

  /** The guest has another amount of memory: the balloon stays as large as it is. */
  resize(ramBytes: number): void {
    this.#ramBytes = ramBytes;
  }

  /** The guest was reset: its balloon is empty, whatever QEMU says until the next driver says something. */
  reset(): void {
    this.#resetAt = monotonicNow();
    this.#staleBytes = this.#ramBytes - this.#actualBytes;
    this.#actualBytes = 0;
    // The driver before may have said another size since QEMU told of one.
    this.#vmm.guestBytes().then(
      (bytes) => {
        if (this.#staleBytes !== null) this.#staleBytes = bytes;
      },
      (error: unknown) => {
        if (!(error instanceof VmmError)) throw error;
      },
    );
    // QEMU keeps the target, so the next driver moves there.
    this.#ordered ||= this.#targetBytes > 0;
    this.#begin();
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #sizeOf(guestBytes: number): number {
    return Math.max(0, this.#ramBytes - guestBytes);
  }

  #begin(): void {
    this.progress.begin(this.#targetBytes, this.#actualBytes, this.passedBytes);
  }

  /** One command at a time: of several targets, the last one goes out. */
  #send(): void {
    this.#again = true;
    if (!this.#sending) void this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    this.#sending = true;
    try {
      while (this.#again && !this.#closed) {
        this.#again = false;
        await this.#vmm.setGuest(this.#ramBytes - this.#targetBytes);
        this.#unsent = false;
        this.#watcher.answered();
      }
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      this.#unsent = true;
      this.#watcher.failed(error);
    } finally {
      this.#sending = false;
    }
    this.#watch();
  }

  /** Looks often for as long as it moves. */
  #watch(): void {
    const moves = this.#actualBytes !== this.#targetBytes && this.progress.stillMs < STILL_MS;
    if (this.#timer !== null || !moves || this.#closed) return;
    const asked = monotonicNow();
    this.#timer = setTimeout(() => {
      this.#vmm.guestBytes().then(
        (bytes) => {
          this.#timer = null;
          if (this.#closed) return;
          this.sees(bytes, false);
          // A QEMU that is slow is not asked more often than it answers.
          if (msSince(asked) < STILL_MS) this.#watch();
        },
        (error: unknown) => {
          this.#timer = null;
          if (!(error instanceof VmmError)) throw error;
        },
      );
    }, LOOK_MS).unref();
  }
}
