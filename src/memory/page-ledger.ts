import { createMemfd } from '../os/memfd.js';
import { closeFd } from '../os/fd.js';
import { Mapping } from '../os/mapping.js';
import { PageSet } from './page-set.js';

/** Pages of a block, 2 MiB of the file: where it is backed by a huge page, the most that can be discarded at once. */
export const BLOCK_PAGES = 512;

/**
 * What is known of each 4 KiB page of one memory region: whether it is in the balloon, and whether its discard
 * is still owed (not done yet, inhibited, failed, or the rest of a larger backing page is still with the guest).
 * Invariant: a page that owes a discard is in the balloon.
 *
 * Two bits a page in a memfd, 64 KiB for each GiB of guest memory; parts never ballooned cost nothing.
 */
export class PageLedger {
  readonly ballooned: PageSet;
  readonly pending: PageSet;
  /** Blocks of pages that owe a discard which was not tried yet. */
  readonly fresh: PageSet;
  /** Those of them that are in the balloon as a whole. */
  readonly whole: PageSet;
  readonly pages: number;
  readonly #lead: number;
  readonly #mapping: Mapping;

  /** `lead`: pages of the first block that lie before the region. */
  constructor(pages: number, lead = 0) {
    this.pages = pages;
    this.#lead = lead;
    const bytes = Math.ceil(PageSet.bytesFor(pages) / 4096) * 4096;
    const fd = createMemfd('balloond-ledger', 2 * bytes);
    try {
      this.#mapping = Mapping.map(fd, 0, 2 * bytes);
    } finally {
      closeFd(fd);
    }
    this.ballooned = new PageSet(this.#mapping.view(0, bytes), pages);
    this.pending = new PageSet(this.#mapping.view(bytes, bytes), pages);
    const blocks = this.#blockOf(pages - 1) + 1;
    this.fresh = new PageSet(new ArrayBuffer(PageSet.bytesFor(blocks)), blocks);
    this.whole = new PageSet(new ArrayBuffer(PageSet.bytesFor(blocks)), blocks);
  }

  /** The guest gave these pages up; their discard is owed. Returns how many were not in the balloon before. */
  inflate(first: number, count: number): number {
    const added = this.ballooned.add(first, count);
    this.pending.add(first, count);
    this.refresh(first, count);
    return added;
  }

  /** The guest gave these pages up, and they shall not be discarded. */
  inflateKept(first: number, count: number): void {
    this.ballooned.add(first, count);
  }

  /** The discard of these pages is to be tried, or tried again. */
  refresh(first: number, count: number): void {
    const last = this.#blockOf(first + count - 1);
    for (let block = this.#blockOf(first); block <= last; block++) {
      this.fresh.add(block, 1);
      const { first: start, count: pages } = this.block(block);
      if (this.ballooned.covers(start, pages)) this.whole.add(block, 1);
    }
  }

  /** All that is owed is to be tried again. */
  refreshAll(): void {
    for (const { first, count } of this.pending.runs()) this.refresh(first, count);
  }

  /** The guest takes these pages back. Returns how many were in the balloon. */
  deflate(first: number, count: number): number {
    this.pending.remove(first, count);
    return this.ballooned.remove(first, count);
  }

  /** The pages of a block that are in the region. */
  block(block: number): { first: number; count: number } {
    const start = Math.max(0, block * BLOCK_PAGES - this.#lead);
    const end = Math.min(this.pages, (block + 1) * BLOCK_PAGES - this.#lead);
    return { first: start, count: end - start };
  }

  /** Nothing is owed any more; what is in the balloon stays there. */
  forgive(): void {
    this.pending.clear();
    this.fresh.clear();
    this.whole.clear();
  }

  /** The guest started over: every page is its own again. */
  clear(): void {
    this.ballooned.clear();
    this.forgive();
  }

  close(): void {
    this.#mapping.close();
  }

  #blockOf(page: number): number {
    return Math.floor((page + this.#lead) / BLOCK_PAGES);
  }
}
