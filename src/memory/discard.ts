import { constants } from 'node:os';
import { BackgroundDiscard, NOT_ATTEMPTED, probeDiscard } from '../os/discard.js';
import { SystemError } from '../os/errors.js';
import { rangeBytes, RangeList, takeBlocks, wholeBlocksAwaited } from './batch-ranges.js';
import { PAGE_BYTES, type GuestRegion } from './region.js';

/** Batches are put together here, one at a time. */
const building = new RangeList();

/** Errors that may go away by themselves, and how long to wait before the first and the next tries. */
const PASSING_ERRORS: readonly string[] = ['ENOMEM', 'EBUSY', 'EAGAIN', 'EINTR'];
const RETRY_MS = 1000;
const RETRY_MS_MAX = 60_000;

/** What is discarded from; its regions are another array when they changed. */
interface Memory {
  readonly regions: readonly GuestRegion[];
}

/** How long a discard may wait for others to be merged with, in milliseconds. */
export interface Delay {
  /** After the last page that was given up. */
  quietMs: number;
  /** After the first. */
  longestMs: number;
}

/** What one piece of work did. */
export interface DiscardResult {
  discardedBytes: number;
  failedRanges: number;
  /** The first failure. */
  error: SystemError | null;
  /** What the system calls took. */
  seconds: number;
}

/** A part of guest memory that its driver reported free, until it is settled. */
interface Reported {
  readonly region: GuestRegion;
  /** Bytes in the region's mapping, whole backing pages; what was settled is cut off the front. */
  offset: number;
  end: number;
}

/** Ranges of one region that a thread discards. */
interface Batch {
  readonly region: GuestRegion;
  /** Pairs of offset and length in the mapping. */
  readonly ranges: Float64Array;
  readonly outcomes: Int32Array;
  /** The list at whose front they were taken; null when they are owed. */
  readonly reported: Reported[] | null;
  readonly begunAt: number;
  /** Null when it could not be begun. */
  work: BackgroundDiscard | null;
}

/**
 * Turns pages that owe a discard into punched holes of the backing file, behind the back of those who gave them up:
 * one batch at a time on a thread, merged over everything given up meanwhile. Only whole backing pages are
 * discarded, and only when every 4 KiB page of theirs is in the balloon.
 *
 * Whoever takes pages back, or takes memory or rings away, calls interrupt() first and goes on when that calls back:
 * between, nothing is under way, and nothing new is begun before the callback returned.
 *
 * Guest memory is a shared file mapping, where MADV_DONTNEED frees nothing, so pages are removed from the file.
 */
export class Discarder {
  readonly #memory: Memory;
  readonly #delay: Delay;
  readonly #onResult: (result: DiscardResult) => void;
  readonly #first: () => boolean;
  #running = false;
  #batch: Batch | null = null;
  /** Free page reports in the order they came, and who waits for them. */
  #reported: Reported[] = [];
  #reportWaiters: { reports: number; done: () => void }[] = [];
  /** A sweep tries all that is owed; it stands at a region and a block of it. */
  #sweep: { regions: readonly GuestRegion[]; region: number; block: number } | null = null;
  #sweepWanted = false;
  #sweepWaiters: (() => void)[] = [];
  #nextSweepWaiters: (() => void)[] = [];
  #idleWaiters: (() => void)[] = [];
  #behindBytes = 0;
  #timer: NodeJS.Timeout | null = null;
  #firstAt = 0;
  #lastAt = 0;
  #retry: NodeJS.Timeout | null = null;
  #retryMs = RETRY_MS;
  #stepping = false;

  /** `first` is asked before each batch, and where one may be begun: true when other work goes first, until goOn(). */
  constructor(
    memory: Memory,
    delay: Delay,
    onResult: (result: DiscardResult) => void,
    first: () => boolean = () => false,
  ) {
    this.#memory = memory;
    this.#delay = delay;
    this.#onResult = onResult;
    this.#first = first;
  }

  /** A discard is under way. */
  get busy(): boolean {
    return this.#batch !== null;
  }

  /** The work that went first has ended. */
  goOn(): void {
    this.#go();
  }

  /** At most what was given up since the last sweep and is not discarded yet. */
  get behindBytes(): number {
    return this.#behindBytes;
  }

  /** How long the discard that is under way has been, in milliseconds; 0 when there is none. */
  get busyMs(): number {
    return this.#batch === null ? 0 : performance.now() - this.#batch.begunAt;
  }

  /** From now on discards are made, beginning with what is owed. */
  start(): void {
    this.#running = true;
    for (const { ledger } of this.#memory.regions) {
      if (ledger.pending.size > 0) ledger.refreshAll();
    }
    this.#sweepWanted = true;
    this.#go();
  }

  /** Nothing more is begun; what is owed stays owed. Who waited is told, as if it had been tried. */
  stop(): void {
    this.#running = false;
    this.#clearTimers();
    this.#batch?.work?.stop();
    const waiters = [
      ...this.#sweepWaiters.splice(0),
      ...this.#nextSweepWaiters.splice(0),
      ...this.#reportWaiters.splice(0).map(({ done }) => done),
    ];
    this.#sweep = null;
    this.#sweepWanted = false;
    this.#reported = [];
    const release = (): void => {
      for (const done of waiters) done();
    };
    if (this.interrupt(release)) release();
  }

  /** Pages that owe a discard, as the ledger already has it: a few whole blocks are discarded at once, the rest soon. */
  owe(pages: number): void {
    this.#behindBytes += pages * PAGE_BYTES;
    this.#lastAt = performance.now();
    if (this.#timer === null) {
      this.#firstAt = this.#lastAt;
      this.#wait(this.#delay.quietMs);
    }
    if (this.#batch === null) this.#go();
  }

  /** A part of a region that its driver leaves alone until afterReports() calls back: its whole backing pages. */
  report(region: GuestRegion, offset: number, lenBytes: number): void {
    const unit = region.file.pageBytes;
    const from = Math.ceil((region.lead + offset) / unit) * unit;
    const end = Math.floor((region.lead + offset + lenBytes) / unit) * unit;
    if (from < end) this.#reported.push({ region, offset: from, end });
  }

  /** True when all that was reported so far was tried; else `done` is called when it was. */
  afterReports(done: () => void): boolean {
    if (this.#reported.length === 0) return true;
    this.#reportWaiters.push({ reports: this.#reported.length, done });
    this.#go();
    return false;
  }

  /** Calls back once when all that is owed now was tried. */
  afterSweep(done: () => void): void {
    this.#nextSweepWaiters.push(done);
    this.#sweepWanted = true;
    this.#go();
  }

  /** Whether pages firstPfn to lastPfn may be among those being discarded at this moment. */
  touches(firstPfn: number, lastPfn: number): boolean {
    if (this.#batch === null) return false;
    const { region, ranges } = this.#batch;
    const base = region.gpa - region.lead;
    // Ranges of a batch ascend, except those that were reported.
    const ascend = this.#batch.reported === null;
    const from = ascend ? (ranges[0] ?? 0) : 0;
    const to = ascend ? (ranges.at(-2) ?? 0) + (ranges.at(-1) ?? 0) : Infinity;
    return (lastPfn + 1) * PAGE_BYTES > base + from && firstPfn * PAGE_BYTES < base + to;
  }

  /**
   * True when nothing is under way. Else that is cut short, and `idle` is called when it has ended; what was not
   * tried is tried again later.
   */
  interrupt(idle: () => void): boolean {
    if (this.#batch === null) return true;
    this.#batch.work?.stop();
    this.#idleWaiters.push(idle);
    return false;
  }

  /** The rest of what was reported is left alone. Who waited for it is told so when no discard of it is under way. */
  dropReports(): void {
    this.#reported = [];
    const waiters = this.#reportWaiters.splice(0);
    const release = (): void => {
      for (const { done } of waiters) done();
    };
    if (this.#batch === null || this.#batch.reported === null || this.interrupt(release)) release();
  }

  #go(): void {
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      while (this.#batch === null && !this.#first() && this.#running && this.#step());
    } finally {
      this.#stepping = false;
    }
  }

  /** Begins a batch, or gets nearer to one; false when there is nothing to do. */
  #step(): boolean {
    if (this.#reported.length > 0) {
      this.#startReported();
      return true;
    }
    if (this.#sweep === null && this.#sweepWanted) this.#beginSweep();
    if (this.#sweep === null) return this.#startWhole();
    if (!this.#startSweep()) {
      this.#sweep = null;
      for (const done of this.#sweepWaiters.splice(0)) done();
    }
    return true;
  }

  #startReported(): void {
    const region = this.#reported[0]?.region;
    if (region === undefined) return;
    const most = Math.max(rangeBytes(region), region.file.pageBytes);
    building.clear();
    for (const report of this.#reported) {
      if (report.region !== region) break;
      for (let at = report.offset; at < report.end && !building.full; at += most) {
        building.add(at, Math.min(most, report.end - at));
      }
    }
    this.#start(region, this.#reported);
  }

  #beginSweep(): void {
    this.#sweepWanted = false;
    this.#sweep = { regions: this.#memory.regions, region: 0, block: 0 };
    this.#sweepWaiters = this.#nextSweepWaiters.splice(0);
    this.#behindBytes = 0;
  }

  /** The next batch of a sweep; false when it is through. */
  #startSweep(): boolean {
    const { regions } = this.#memory;
    if (this.#sweep?.regions !== regions) this.#sweep = { regions, region: 0, block: 0 };
    const sweep = this.#sweep;
    for (; sweep.region < regions.length; sweep.region++, sweep.block = 0) {
      const region = regions[sweep.region];
      if (region === undefined || region.ledger.fresh.size === 0) continue;
      building.clear();
      sweep.block = takeBlocks(building, region, region.ledger.fresh, sweep.block);
      if (building.count === 0) continue;
      this.#start(region, null);
      return true;
    }
    return false;
  }

  #startWhole(): boolean {
    for (const region of this.#memory.regions) {
      if (region.ledger.whole.size < wholeBlocksAwaited(region)) continue;
      building.clear();
      takeBlocks(building, region, region.ledger.whole, 0);
      if (building.count === 0) continue;
      this.#behindBytes = Math.max(0, this.#behindBytes - building.bytes);
      this.#start(region, null);
      return true;
    }
    return false;
  }

  /** Hands what was built over to a thread. */
  #start(region: GuestRegion, reported: Reported[] | null): void {
    const ranges = building.take();
    const count = ranges.length / 2;
    const batch: Batch = {
      region,
      ranges,
      outcomes: new Int32Array(count),
      reported,
      begunAt: performance.now(),
      work: null,
    };
    const settle = (seconds: number): void => this.#settle(batch, seconds);
    this.#batch = batch;
    if (!region.checkFile()) {
      // The kernel would punch holes beyond the end of the file and find nothing wrong with it.
      batch.outcomes.fill(constants.errno.ENXIO);
      setImmediate(settle, 0);
      return;
    }
    try {
      const { mapping, fd } = region;
      batch.work = new BackgroundDiscard(mapping, fd, ranges, count, batch.outcomes, settle, probeDiscard());
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      batch.outcomes.fill(constants.errno.ENOMEM);
      setImmediate(settle, 0);
    }
  }

  #settle(batch: Batch, seconds: number): void {
    const result: DiscardResult = { discardedBytes: 0, failedRanges: 0, error: null, seconds };
    this.#batch = null;
    this.#stepping = true;
    try {
      if (batch.reported === null) this.#settleOwed(batch, result);
      else this.#settleReports(batch, result);
      this.#onResult(result);
      for (const idle of this.#idleWaiters.splice(0)) idle();
    } finally {
      this.#stepping = false;
    }
    this.#go();
  }

  #settleOwed({ region, ranges, outcomes }: Batch, result: DiscardResult): void {
    const { ledger, lead } = region;
    let interrupted = false;
    for (const [n, outcome] of outcomes.entries()) {
      const lenBytes = ranges[2 * n + 1] ?? 0;
      const first = ((ranges[2 * n] ?? 0) - lead) / PAGE_BYTES;
      if (outcome === 0) {
        ledger.pending.remove(first, lenBytes / PAGE_BYTES);
        result.discardedBytes += lenBytes;
      } else if (outcome === NOT_ATTEMPTED) {
        ledger.refresh(first, lenBytes / PAGE_BYTES);
        interrupted = true;
      } else {
        this.#fail(outcome, result);
      }
    }
    if (interrupted && this.#sweep !== null) this.#sweep = { regions: [], region: 0, block: 0 };
    if (interrupted && this.#running && this.#timer === null) this.#wait(this.#delay.quietMs);
    if (result.failedRanges === 0) this.#retryMs = RETRY_MS;
    else if (PASSING_ERRORS.includes(result.error?.code ?? '')) this.#tryAgainLater();
  }

  #settleReports({ ranges, outcomes, reported }: Batch, result: DiscardResult): void {
    // Nobody waits for those that were dropped meanwhile.
    if (reported !== this.#reported) return;
    let settled = 0;
    for (const [n, outcome] of outcomes.entries()) {
      if (outcome === NOT_ATTEMPTED) break;
      const report = this.#reported[settled];
      if (report === undefined) break;
      const lenBytes = ranges[2 * n + 1] ?? 0;
      if (outcome === 0) result.discardedBytes += lenBytes;
      else this.#fail(outcome, result);
      report.offset += lenBytes;
      if (report.offset >= report.end) settled++;
    }
    this.#reported.splice(0, settled);
    for (const waiter of this.#reportWaiters) waiter.reports -= settled;
    const ready = this.#reportWaiters.filter(({ reports }) => reports <= 0);
    this.#reportWaiters = this.#reportWaiters.filter(({ reports }) => reports > 0);
    for (const { done } of ready) done();
  }

  #fail(errno: number, result: DiscardResult): void {
    result.failedRanges++;
    result.error ??= new SystemError(errno, probeDiscard());
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#due();
    }, ms);
  }

  #due(): void {
    if (!this.#running || !this.#memory.regions.some(({ ledger }) => ledger.fresh.size > 0)) return;
    const { quietMs, longestMs } = this.#delay;
    const dueInMs = Math.min(this.#lastAt + quietMs, this.#firstAt + longestMs) - performance.now();
    if (dueInMs > 0) {
      this.#wait(Math.ceil(dueInMs));
      return;
    }
    this.#sweepWanted = true;
    this.#go();
  }

  #tryAgainLater(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      if (this.#running) this.start();
    }, this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS_MAX);
  }

  #clearTimers(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#timer = null;
    this.#retry = null;
  }
}
