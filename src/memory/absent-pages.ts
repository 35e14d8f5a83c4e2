import { SystemError } from '../os/errors.js';
import { probeResident, readsAsZeros } from '../os/resident.js';
import { findPresent, isComparable, type Present } from './comparison.js';
import type { Discarder } from './discard.js';
import type { GuestMemory } from './guest-memory.js';
import { oweAgain } from './owed-pages.js';
import { PAGE_BYTES, type GuestRegion } from './region.js';
import { SPARE_TIME } from './spare-time.js';

/** Looks after which the guest is compared although its balloon never rests, and after which it is although nothing moved. */
const RESTLESS_LOOKS = 15;
const IDLE_LOOKS = 75;
/** Looks between two tries to discard what stayed when it was discarded again. */
const STAYING_LOOKS = 3;
/**
 * Looks for each millisecond that the last comparison took. A look comes every 4 s: these make for a hundredth of a core where
 * something is to be discarded again, a thousandth where something moved, and 1/100000 where nothing did.
 */
const AGAIN_LOOKS_PER_MS = 0.025;
const MOVED_LOOKS_PER_MS = 0.25;
const IDLE_LOOKS_PER_MS = 25;
/** A file that grew by less than this, or by less than that part of what should be absent, is taken to rest. */
const GROWN_BYTES = 2 ** 20;
const GROWN_PART = 1 / 256;
/** A file that grew by that part of it was read as a whole. */
const LEAP_PART = 1 / 16;

/** What the device says of itself, as it is when it is read. */
interface AbsentState {
  readonly running: () => boolean;
  /** The driver must tell before it uses a page of the balloon. */
  readonly tellsFirst: () => boolean;
  readonly inhibited: () => boolean;
  /** Rises whenever pages go in or out of the balloon. */
  readonly moved: () => number;
}

/** A block was found once to be there again, or was discarded again and is there all the same. */
type Mark = 'seen' | 'tried';
type Marks = Map<GuestRegion, Map<number, Mark>>;

/** The comparison before this one. */
interface Last {
  readonly moved: number;
  /** The least that the files took up since. */
  allocatedBytes: number;
  /** What it took, with the discards that followed. */
  ms: number;
  looks: number;
  /** Something was discarded again, and whether that helped is not known yet. */
  open: boolean;
}

/**
 * Pages that were discarded and are there again, although they are in the balloon: somebody on the host touched them (a dump
 * of the VM, mlock), or a pin kept the huge page that they are part of. The file is compared with the ledger soon after
 * pages moved, when the file grew, and now and then; what is there is discarded again, by the ledger and the Discarder, so
 * that all that holds for a first discard holds for it.
 *
 * Nothing can be destroyed by that: a page is discarded again only when two comparisons found it and when it reads as zeros,
 * as it does when it is gone. A page that holds something is in use by a guest that did not tell, such as a kernel that kexec
 * started: from then on nothing is discarded again until a driver starts anew.
 */
export class AbsentPages {
  readonly #memory: GuestMemory;
  readonly #discarder: Discarder;
  readonly #state: AbsentState;
  #refilled: number | null = null;
  #pinned: number | null = null;
  #used = 0;
  #marks: Marks = new Map();
  #last: Last | null = null;
  #movedAtLook = -1;
  /** Looks in a row at which pages had moved. */
  #restless = 0;
  #cancel: (() => void) | null = null;

  constructor(memory: GuestMemory, discarder: Discarder, state: AbsentState) {
    this.#memory = memory;
    this.#discarder = discarder;
    this.#state = state;
  }

  /** What is there again, in bytes; null: not known. */
  get refilledBytes(): number | null {
    return this.#refilled;
  }

  /** What was discarded again and is there all the same, in bytes; null: not known. */
  get pinnedBytes(): number | null {
    return this.#pinned;
  }

  /** What holds something although it is in the balloon, in bytes of the first blocks that were found so. */
  get usedBytes(): number {
    return this.#used;
  }

  get tellsFirst(): boolean {
    return this.#state.tellsFirst();
  }

  get inhibited(): boolean {
    return this.#state.inhibited();
  }

  /** To be called every 4 s or so. Compares in spare time, where there is reason to. */
  look(): void {
    if (this.#cancel !== null) return;
    if (!this.#state.running() || probeResident() === null || !this.#memory.regions.some(isComparable)) {
      this.forget();
    } else if (this.#memory.balloonedPages <= this.#memory.pendingPages) {
      // Nothing has to be absent, unless all that has to be is on its way out once more.
      if (this.#last?.open === true) return;
      this.#forgetFound();
      this.#refilled = 0;
      this.#pinned = 0;
    } else if (this.#isDue(this.#lookAtMoves())) {
      this.#begin();
    }
  }

  /** What the device moved so far; and since when it rests. */
  #lookAtMoves(): number {
    const moved = this.#state.moved();
    this.#restless = moved === this.#movedAtLook ? 0 : this.#restless + 1;
    this.#movedAtLook = moved;
    return moved;
  }

  /** The driver stopped, so that nothing is known. */
  forget(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#forgetFound();
    this.#refilled = null;
    this.#pinned = null;
  }

  /** Another driver starts. */
  startOver(): void {
    this.forget();
    this.#used = 0;
  }

  #forgetFound(): void {
    if (this.#marks.size > 0) this.#marks.clear();
    this.#last = null;
  }

  #isDue(moved: number): boolean {
    const last = this.#last;
    if (last === null) return this.#restless === 0 || this.#restless >= RESTLESS_LOOKS;
    const allocated = this.#memory.allocatedBytes;
    last.allocatedBytes = Math.min(last.allocatedBytes, allocated);
    last.looks++;
    if (this.#restless > 0 && last.looks < RESTLESS_LOOKS) return false;
    if (last.open) return true;
    const [refilled, pinned] = [this.#refilled ?? 0, this.#pinned ?? 0];
    if (refilled + pinned > 0) {
      const least = refilled > 0 ? 1 : STAYING_LOOKS;
      return (
        last.looks >= Math.max(least, last.ms * (this.#mayDiscard ? AGAIN_LOOKS_PER_MS : MOVED_LOOKS_PER_MS))
      );
    }
    const absent = (this.#memory.balloonedPages - this.#memory.pendingPages) * PAGE_BYTES;
    const growth = allocated - last.allocatedBytes;
    const grown = growth >= Math.max(GROWN_BYTES, absent * GROWN_PART);
    if (grown && growth >= absent * LEAP_PART) return last.looks >= last.ms * AGAIN_LOOKS_PER_MS;
    if (grown || moved !== last.moved) return last.looks >= last.ms * MOVED_LOOKS_PER_MS;
    return last.looks >= Math.max(IDLE_LOOKS, last.ms * IDLE_LOOKS_PER_MS);
  }

  #begin(): void {
    const moved = this.#state.moved();
    const verifies = this.#last?.open ?? false;
    const before = verifies ? (this.#last?.ms ?? 0) : 0;
    const last = { moved, allocatedBytes: this.#memory.allocatedBytes, ms: before, looks: 0, open: false };
    this.#last = last;
    this.#cancel = SPARE_TIME.run(this.#compare(last, verifies), (ms) => {
      last.ms += ms;
      this.#cancel = null;
    });
  }

  /** `verifies`: finds out whether discarding again helped. */
  *#compare(last: Last, verifies: boolean): Generator<undefined, void> {
    const method = probeResident();
    if (method === null) return;
    try {
      const found = yield* findPresent(this.#memory, method);
      if (found === null) return;
      const again = this.#note(found, verifies);
      if (again.length > 0 && this.#mayDiscard) last.open = yield* this.#discardAgain(again, last.moved);
    } catch (error) {
      // The file was cut short, which whoever discards finds out.
      if (!(error instanceof SystemError)) throw error;
    }
  }

  get #mayDiscard(): boolean {
    const { running, tellsFirst, inhibited } = this.#state;
    return running() && tellsFirst() && !inhibited() && this.#used === 0;
  }

  /** Returns what is to be discarded again: what was found twice, and in its turn what stayed. */
  #note(found: readonly Present[], verifies: boolean): Present[] {
    const before = this.#marks;
    const again: Present[] = [];
    this.#marks = new Map();
    this.#refilled = 0;
    this.#pinned = 0;
    for (const present of found) {
      const { region, block, bytes } = present;
      const mark = before.get(region)?.get(block);
      this.#mark(present, mark ?? 'seen');
      if (mark === 'tried') this.#pinned += bytes;
      else this.#refilled += bytes;
      if (mark === 'seen' || (mark === 'tried' && !verifies)) again.push(present);
    }
    return again;
  }

  #mark({ region, block }: Present, mark: Mark): void {
    const marks = this.#marks.get(region) ?? new Map<number, Mark>();
    this.#marks.set(region, marks);
    marks.set(block, mark);
  }

  /** `moved`: as it was before these were found. Returns whether any now owe their discard. */
  *#discardAgain(found: readonly Present[], moved: number): Generator<undefined, boolean> {
    const { regions } = this.#memory;
    const empty: Present[] = [];
    for (const present of found) {
      const { region, first, count } = present;
      const lenBytes = count * PAGE_BYTES;
      if (readsAsZeros(region.mapping, region.fd, region.lead + first * PAGE_BYTES, lenBytes)) {
        empty.push(present);
      } else if (this.#state.moved() === moved) {
        this.#used += lenBytes;
      }
      yield;
      if (this.#memory.regions !== regions) return false;
    }
    if (!this.#mayDiscard) return false;
    let pages = 0;
    for (const present of empty) {
      pages += oweAgain(present.region, present.first, present.count, this.tellsFirst);
      this.#mark(present, 'tried');
    }
    if (pages > 0) this.#discarder.afterSweep(() => undefined);
    return pages > 0;
  }
}
