import { constants } from 'node:os';
import { BackgroundRefill, NOT_ATTEMPTED, type RefillMethod } from '../os/discard.js';
import { SystemError } from '../os/errors.js';
import { RangeList } from './batch-ranges.js';
import { oweBackingPages } from './owed-pages.js';
import { PAGE_BYTES, type GuestRegion } from './region.js';

/** Batches are put together here, one at a time. */
const building = new RangeList();

/** How long after a try that was in vain the pool is asked again, first and at most, in milliseconds. */
const RETRY_MS = 100;
const RETRY_MS_MAX = 1000;

/** What is filled; its regions are another array when they changed. */
interface Memory {
  readonly regions: readonly GuestRegion[];
}

/** Huge pages that guest memory should have and has not. */
export interface Shortage {
  readonly bytes: number;
  /** A region with such pages. */
  readonly region: GuestRegion;
  /** The last failure of the kernel to give one. */
  readonly error: SystemError;
  /** The guest waits for them before it uses them. False: it may use them at any time. */
  readonly guestWaits: boolean;
}

/** What a Refiller needs of the device, and tells it. None of these may throw. */
interface RefillHost {
  /** A discard is under way: the two take turns. */
  readonly discarding: boolean;
  /** The guest tells before it uses a page of the balloon. */
  readonly tellsFirst: boolean;
  /** The refiller is not at work any more: discards may be. */
  rest(): void;
  /** Pages that are in the balloon have memory again, and owe their discard. */
  owes(pages: number): void;
  short(shortage: Shortage): void;
  /** There is nothing missing any more. */
  enough(): void;
}

interface Batch {
  readonly region: GuestRegion;
  readonly ranges: Float64Array;
  readonly outcomes: Int32Array;
  readonly method: RefillMethod;
  /** Null when it could not be begun. */
  work: BackgroundRefill | null;
}

/** Goes once through all that is missing; it stands at a region and a backing page of it. */
interface Pass {
  readonly method: RefillMethod;
  regions: readonly GuestRegion[];
  region: number;
  unit: number;
}

/**
 * Gives the file of guest memory on hugetlbfs pages for the holes that discards left, where the guest is about to use them
 * (MissingPages): on a thread, one batch at a time, never beside a discard of the same VM. While the pool has none, it asks
 * again and again, and nobody but those who wait for these pages is held up.
 */
export class Refiller {
  readonly #memory: Memory;
  readonly #host: RefillHost;
  #batch: Batch | null = null;
  #settling = false;
  #pass: Pass | null = null;
  #failure: { region: GuestRegion; error: SystemError } | null = null;
  #waiter: (() => void) | null = null;
  #reserved: (() => void) | null = null;
  #idleWaiters: (() => void)[] = [];
  #timer: NodeJS.Timeout | null = null;
  #retryMs = RETRY_MS;
  #short = false;
  /** Pages that are in the balloon are to be filled as well: the device ends, or does not run. */
  #ending = true;

  constructor(memory: Memory, host: RefillHost) {
    this.#memory = memory;
    this.#host = host;
    // A process before this one may have left something.
    this.#again();
  }

  /** A batch is under way. */
  get busy(): boolean {
    return this.#batch !== null;
  }

  /** The device ends, or does not run: goOn() was not called since it was made, or since reserve(). */
  get ending(): boolean {
    return this.#ending;
  }

  /** True when nothing is missing; else `done` is called when nothing is any more. One at a time may wait. */
  afterAll(done: () => void): boolean {
    if (this.#missingBytes === 0) return true;
    this.#waiter = done;
    this.#wake();
    return false;
  }

  /** Nobody waits any more; what is missing stays missing. */
  forget(): void {
    this.#waiter = null;
  }

  /**
   * Whatever the balloon took may be used without a word from now on: the pool is to keep a page for each, as far as it
   * has some, and to give them afterwards. True when the balloon took nothing; else `done` is called when the pool was asked
   * for each.
   */
  reserve(done: () => void): boolean {
    this.#ending = true;
    for (const region of this.#memory.regions) {
      const { missing } = region;
      if (missing === null) continue;
      for (const { first, count } of region.ledger.ballooned.runs()) {
        missing.addWhole(first * PAGE_BYTES, count * PAGE_BYTES);
      }
    }
    if (this.#missingBytes === 0) return true;
    this.#reserved = done;
    this.#pass = this.#newPass('reserve');
    this.begin();
    return false;
  }

  /** The device runs: what is in the balloon needs no pages. */
  goOn(): void {
    this.#ending = false;
    this.#reserved = null;
    this.#wake();
  }

  /** True when nothing is under way; else that is cut short, and `idle` is called when it has ended. */
  interrupt(idle: () => void): boolean {
    if (this.#batch === null) return true;
    this.#batch.work?.stop();
    this.#idleWaiters.push(idle);
    return false;
  }

  /** Begins a batch where that is due and nothing else is under way. True: nothing else may begin. */
  begin(): boolean {
    if (this.#settling) return true;
    while (this.#batch === null && this.#pass !== null && !this.#host.discarding) {
      if (this.#startNext(this.#pass)) break;
      this.#endPass(this.#pass.method);
    }
    return this.#batch !== null;
  }

  get #missingBytes(): number {
    return this.#memory.regions.reduce((sum, { missing }) => sum + (missing?.bytes ?? 0), 0);
  }

  #wake(): void {
    if (this.#missingBytes === 0) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#pass ??= this.#newPass('allocate');
    this.begin();
  }

  #newPass(method: RefillMethod): Pass {
    this.#failure = null;
    return { method, regions: this.#memory.regions, region: 0, unit: 0 };
  }

  /** False when the pass is through. */
  #startNext(pass: Pass): boolean {
    const { regions } = this.#memory;
    if (pass.regions !== regions) Object.assign(pass, { regions, region: 0, unit: 0 });
    for (; pass.region < regions.length; pass.region++, pass.unit = 0) {
      const region = regions[pass.region];
      if (region?.missing === undefined || region.missing === null) continue;
      const { units } = region.missing;
      if (units.size === 0) continue;
      if (region.lost || !region.checkFile()) {
        // There is nothing to fill, and its VM is stopped for that.
        units.clear();
        continue;
      }
      if (this.#build(region, units.runs(pass.unit), pass)) {
        this.#start(region, pass.method);
        return true;
      }
    }
    return false;
  }

  #build({ file }: GuestRegion, runs: Iterable<{ first: number; count: number }>, pass: Pass): boolean {
    building.clear();
    for (const { first, count } of runs) {
      for (let unit = first; unit < first + count; unit++) {
        if (building.full) return true;
        building.add(unit * file.pageBytes, file.pageBytes);
        pass.unit = unit + 1;
      }
    }
    return building.count > 0;
  }

  #start(region: GuestRegion, method: RefillMethod): void {
    const ranges = building.take();
    const count = ranges.length / 2;
    const batch: Batch = { region, ranges, outcomes: new Int32Array(count), method, work: null };
    this.#batch = batch;
    const settle = (): void => this.#settle(batch);
    try {
      const { mapping, fd } = region;
      batch.work = new BackgroundRefill(mapping, fd, ranges, count, batch.outcomes, settle, method);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      batch.outcomes.fill(constants.errno.ENOMEM);
      setImmediate(settle);
    }
  }

  #settle(batch: Batch): void {
    const { region, ranges, outcomes, method } = batch;
    let filled = 0;
    let failed = false;
    for (const [n, outcome] of outcomes.entries()) {
      const unit = (ranges[2 * n] ?? 0) / region.file.pageBytes;
      if (outcome === NOT_ATTEMPTED) {
        this.#stepBack(region, unit);
        break;
      }
      if (outcome === 0) filled++;
      else failed = !this.#dropBallooned(region, unit) || failed;
      if (outcome > 0) this.#failure = { region, error: new SystemError(outcome, method) };
      if (outcome === 0 && method === 'allocate') this.#allocated(region, unit);
    }
    // A pool that gave none of these will not give the next.
    if (failed && filled === 0 && this.#pass !== null) this.#pass.unit = Infinity;
    if (filled > 0) this.#retryMs = RETRY_MS;
    this.#batch = null;
    this.#settling = true;
    for (const idle of this.#idleWaiters.splice(0)) idle();
    this.#settling = false;
    if (!this.begin()) this.#host.rest();
  }

  /** What was cut short is tried again from there on. */
  #stepBack(region: GuestRegion, unit: number): void {
    const pass = this.#pass;
    if (pass?.regions[pass.region] === region) pass.unit = Math.min(pass.unit, unit);
  }

  #allocated(region: GuestRegion, unit: number): void {
    const { missing, ledger } = region;
    missing?.units.remove(unit, 1);
    const { offset = 0, lenBytes = 0 } = missing?.inside(unit) ?? {};
    const before = ledger.pending.size;
    oweBackingPages(region, offset / PAGE_BYTES, lenBytes / PAGE_BYTES, this.#host.tellsFirst);
    if (ledger.pending.size === before) return;
    ledger.refresh(offset / PAGE_BYTES, lenBytes / PAGE_BYTES);
    this.#host.owes(ledger.pending.size - before);
  }

  /** A page that the guest gave up anew needs none. */
  #dropBallooned({ missing, ledger }: GuestRegion, unit: number): boolean {
    const { offset = 0, lenBytes = 0, whole = false } = missing?.inside(unit) ?? {};
    const inBalloon = whole && ledger.ballooned.covers(offset / PAGE_BYTES, lenBytes / PAGE_BYTES);
    if (this.#ending || !inBalloon) return false;
    missing?.units.remove(unit, 1);
    return true;
  }

  #endPass(method: RefillMethod): void {
    this.#pass = null;
    const bytes = this.#missingBytes;
    if (method === 'reserve') {
      const done = this.#reserved;
      this.#reserved = null;
      if (bytes > 0) this.#pass = this.#newPass('allocate');
      // Whoever called reserve() does not expect to be called back before that has returned.
      if (done !== null) setImmediate(done);
      return;
    }
    if (bytes > 0 && this.#failure !== null) {
      this.#short = true;
      this.#host.short({ bytes, ...this.#failure, guestWaits: this.#waiter !== null && !this.#ending });
      this.#again();
    } else if (bytes > 0) {
      this.#pass = this.#newPass('allocate');
    } else {
      if (this.#short) this.#host.enough();
      this.#short = false;
      const done = this.#waiter;
      this.#waiter = null;
      done?.();
    }
  }

  #again(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#wake();
    }, this.#retryMs).unref();
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS_MAX);
  }
}
