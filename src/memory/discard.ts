import { discardRanges, probeDiscard, type DiscardMethod } from '../os/discard.js';
import type { SystemError } from '../os/errors.js';
import { PAGE_BYTES, type GuestRegion } from './region.js';

/** Ranges handed to the kernel at once; more are handed over in several calls. */
const BATCH_RANGES = 4096;

/** What a flush did, for counters and events. */
export interface DiscardResult {
  discardedBytes: number;
  failedRanges: number;
  error: SystemError | null;
}

/**
 * Turns pages that owe a discard into punched holes of the backing file: only whole backing pages, only when every
 * 4 KiB page of theirs is in the balloon. A range that fails keeps owing; the others are not held up by it.
 *
 * Guest memory is a shared file mapping, where MADV_DONTNEED frees nothing, so pages are removed from the file.
 */
export class Discarder {
  readonly #ranges = new Float64Array(2 * BATCH_RANGES);
  readonly #method: DiscardMethod = probeDiscard();
  #count = 0;
  #region: GuestRegion | null = null;
  #result: DiscardResult = { discardedBytes: 0, failedRanges: 0, error: null };

  /**
   * Adds the backing pages that pages first to first + count - 1 touch, where they are complete. Returns how many
   * bytes that are.
   */
  add(region: GuestRegion, first: number, count: number): number {
    if (region.file.pageBytes === PAGE_BYTES) {
      this.#push(region, first, count);
      return count * PAGE_BYTES;
    }
    let bytes = 0;
    for (const whole of completeBackingPages(region, first, count)) {
      this.#push(region, whole.first, whole.count);
      bytes += whole.count * PAGE_BYTES;
    }
    return bytes;
  }

  /**
   * Discards a range that stays the guest's (free page reporting): whole backing pages inside it, whatever the
   * ledger says.
   */
  addReported(region: GuestRegion, offset: number, lenBytes: number): void {
    const unit = region.file.pageBytes;
    const from = Math.ceil((region.lead + offset) / unit) * unit;
    const to = Math.floor((region.lead + offset + lenBytes) / unit) * unit;
    if (from < to) this.#pushBytes(region, from, to - from);
  }

  /** Performs what was added since the last flush. */
  flush(): DiscardResult {
    this.#run();
    const result = this.#result;
    this.#result = { discardedBytes: 0, failedRanges: 0, error: null };
    return result;
  }

  #push(region: GuestRegion, first: number, count: number): void {
    this.#pushBytes(region, region.lead + first * PAGE_BYTES, count * PAGE_BYTES);
  }

  #pushBytes(region: GuestRegion, offset: number, lenBytes: number): void {
    if (this.#region !== region || this.#count === BATCH_RANGES) this.#run();
    this.#region = region;
    this.#ranges[2 * this.#count] = offset;
    this.#ranges[2 * this.#count + 1] = lenBytes;
    this.#count++;
  }

  #run(): void {
    const region = this.#region;
    if (region === null) return;
    let from = 0;
    while (from < this.#count) {
      const ranges = this.#ranges.subarray(2 * from, 2 * this.#count);
      const { completed, error } = discardRanges(
        region.mapping,
        region.fd,
        ranges,
        this.#count - from,
        this.#method,
      );
      for (let n = 0; n < completed; n++) this.#settle(region, ranges[2 * n] ?? 0, ranges[2 * n + 1] ?? 0);
      from += completed;
      if (error !== null) {
        this.#result.failedRanges++;
        this.#result.error = error;
        from++;
      }
    }
    this.#count = 0;
    this.#region = null;
  }

  #settle(region: GuestRegion, offset: number, lenBytes: number): void {
    this.#result.discardedBytes += lenBytes;
    if (region.ledger.pending.size === 0) return;
    region.ledger.pending.remove((offset - region.lead) / PAGE_BYTES, lenBytes / PAGE_BYTES);
  }
}

/** The backing pages larger than 4 KiB that the pages touch and that are in the balloon as a whole, as runs. */
function* completeBackingPages(
  region: GuestRegion,
  first: number,
  count: number,
): Generator<{ first: number; count: number }> {
  const unit = region.file.pageBytes;
  const from = Math.floor((region.lead + first * PAGE_BYTES) / unit) * unit;
  const to = region.lead + (first + count) * PAGE_BYTES;
  for (let at = from; at < to; at += unit) {
    const page = backingPage(region, at);
    if (page !== undefined && region.ledger.ballooned.covers(page.first, page.count)) yield page;
  }
}

/** The 4 KiB pages of the backing page at `at` in the mapping, unless it reaches beyond the region. */
function backingPage(region: GuestRegion, at: number): { first: number; count: number } | undefined {
  const unit = region.file.pageBytes;
  const start = at - region.lead;
  if (start < 0 || start + unit > region.sizeBytes) return undefined;
  return { first: start / PAGE_BYTES, count: unit / PAGE_BYTES };
}

/**
 * The guest takes back pages first to first + count - 1: they leave the balloon, and pages that shared a larger
 * backing page with them owe their discard again, since the guest's next touch brings the whole of it back.
 * Returns how many pages were in the balloon.
 */
export function deflatePages(region: GuestRegion, first: number, count: number): number {
  const removed = region.ledger.deflate(first, count);
  const unit = region.file.pageBytes;
  if (unit === PAGE_BYTES || removed === 0) return removed;
  const from = Math.floor((region.lead + first * PAGE_BYTES) / unit) * unit - region.lead;
  const to = Math.ceil((region.lead + (first + count) * PAGE_BYTES) / unit) * unit - region.lead;
  const end = Math.min(to, region.sizeBytes) / PAGE_BYTES;
  for (const run of region.ledger.ballooned.runs(Math.max(0, from / PAGE_BYTES), end)) {
    region.ledger.pending.add(run.first, run.count);
  }
  return removed;
}
