/** The ranges of a batch: which of what a region owes are discarded together, and how long each of them may be. */
import { owedBackingPages } from './owed-pages.js';
import type { PageSet } from './page-set.js';
import { PAGE_BYTES, type GuestRegion } from './region.js';

/** Handed to a thread at once: some milliseconds of work. */
const BATCH_RANGES = 2048;
const BATCH_BYTES = 64 * 2 ** 20;
/** Longer ranges are handed over in parts, since one of them cannot be cut short. */
const RANGE_BYTES = 4 * 2 ** 20;
/** Whole blocks that are awaited before a thread is woken up for them, or the next sweep: waking it up costs as much as one. */
const WHOLE_BLOCKS = 4;
/**
 * Of huge pages, discarding costs next to nothing, and interrupting the VMM's cores once for each range most of it. So
 * ranges may be longer, and more blocks are awaited.
 */
const HUGE_RANGE_BYTES = 16 * 2 ** 20;
const HUGE_WHOLE_BLOCKS = HUGE_RANGE_BYTES / (2 * 2 ** 20);

/** A list of ranges in one mapping. */
export class RangeList {
  readonly #ranges = new Float64Array(2 * BATCH_RANGES);
  count = 0;
  bytes = 0;

  get full(): boolean {
    return this.count === BATCH_RANGES || this.bytes >= BATCH_BYTES;
  }

  clear(): void {
    this.count = 0;
    this.bytes = 0;
  }

  /** Not when it is full. */
  add(offset: number, lenBytes: number): void {
    this.#ranges[2 * this.count] = offset;
    this.#ranges[2 * this.count + 1] = lenBytes;
    this.count++;
    this.bytes += lenBytes;
  }

  /** As part of the last range where that ends at `offset` and does not get longer than `most`. */
  merge(offset: number, lenBytes: number, most: number): void {
    const at = 2 * this.count - 2;
    const end = (this.#ranges[at] ?? 0) + (this.#ranges[at + 1] ?? 0);
    const merged = (this.#ranges[at + 1] ?? 0) + lenBytes;
    if (this.count === 0 || end !== offset || merged > most) {
      this.add(offset, lenBytes);
    } else {
      this.#ranges[at + 1] = merged;
      this.bytes += lenBytes;
    }
  }

  take(): Float64Array {
    return this.#ranges.slice(0, 2 * this.count);
  }
}

function mayBeHuge({ file }: GuestRegion): boolean {
  return file.shmemHugePages || file.pageBytes > PAGE_BYTES;
}

/** The longest range that is discarded at once. */
export function rangeBytes(region: GuestRegion): number {
  return mayBeHuge(region) ? HUGE_RANGE_BYTES : RANGE_BYTES;
}

/** How many whole blocks of a region are awaited before they are discarded ahead of the next sweep. */
export function wholeBlocksAwaited(region: GuestRegion): number {
  return mayBeHuge(region) ? HUGE_WHOLE_BLOCKS : WHOLE_BLOCKS;
}

/**
 * Adds to the list what is owed of the blocks in `set` from `from` on, and takes those away that were added whole. Returns the
 * block to go on with.
 */
export function takeBlocks(list: RangeList, region: GuestRegion, set: PageSet, from: number): number {
  const { ledger } = region;
  for (const run of set.runs(from)) {
    for (let block = run.first; block < run.first + run.count; block++) {
      if (!addOwed(list, region, block)) return block;
      ledger.fresh.remove(block, 1);
      ledger.whole.remove(block, 1);
    }
  }
  return set.pages;
}

/** False when the list is full before all of the block is in it. */
function addOwed(list: RangeList, region: GuestRegion, block: number): boolean {
  const { ledger, lead } = region;
  const { first, count } = ledger.block(block);
  const owed =
    region.file.pageBytes === PAGE_BYTES
      ? ledger.pending.runs(first, first + count)
      : owedBackingPages(region, first, count);
  for (const run of owed) {
    if (list.full) return false;
    list.merge(lead + run.first * PAGE_BYTES, run.count * PAGE_BYTES, rangeBytes(region));
  }
  return true;
}
