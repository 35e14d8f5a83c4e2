import type { Mapping } from '../os/mapping.js';
import { PageSet } from './page-set.js';
import { StateError, type Area, type StateFile } from './state-file.js';

const AREA_UNIT = 4096;
const CHUNK_BYTES = 1 << 20;

/** Pages of a block, 2 MiB of the file: where it is backed by a huge page, the most that can be discarded at once. */
export const BLOCK_PAGES = 512;

/**
 * What is known of each 4 KiB page of one memory region: whether it is in the balloon, and whether its discard
 * is still owed (not done yet, inhibited, failed, or the rest of a larger backing page is still with the guest).
 * Invariant: a page that owes a discard is in the balloon.
 *
 * Two bits a page in the VM's state file, 64 KiB for each GiB of guest memory; parts never ballooned cost nothing.
 */
export class PageLedger {
  readonly ballooned: PageSet;
  readonly pending: PageSet;
  /** Blocks of pages that owe a discard which was not tried yet. */
  readonly fresh: PageSet;
  /** Those of them that are in the balloon as a whole. */
  readonly whole: PageSet;
  readonly pages: number;
  /** Where its bits are. */
  readonly area: Area;
  readonly #lead: number;
  readonly #state: StateFile;
  readonly #mapping: Mapping;

  /**
   * `lead`: pages of the first block that lie before the region. `found`: the area of a ledger that was begun by a
   * process that is gone. Throws StateError when it cannot be one.
   */
  constructor(state: StateFile, pages: number, lead = 0, found: Area | null = null) {
    this.pages = pages;
    this.#lead = lead;
    this.#state = state;
    const bytes = Math.ceil(PageSet.bytesFor(pages) / AREA_UNIT) * AREA_UNIT;
    if (found !== null && found.lenBytes !== 2 * bytes) {
      throw new StateError(`a ledger of ${found.lenBytes} bytes for ${pages} pages`);
    }
    this.area = found === null ? state.allocate(2 * bytes) : state.claim(found);
    try {
      this.#mapping = state.map(this.area);
    } catch (error) {
      if (found === null) state.free(this.area);
      throw error;
    }
    this.ballooned = new PageSet(this.#mapping.view(0, bytes), pages);
    this.pending = new PageSet(this.#mapping.view(bytes, bytes), pages);
    const blocks = this.blockOf(pages - 1) + 1;
    this.fresh = new PageSet(new ArrayBuffer(PageSet.bytesFor(blocks)), blocks);
    this.whole = new PageSet(new ArrayBuffer(PageSet.bytesFor(blocks)), blocks);
    if (found !== null) this.#resume(bytes);
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
    const last = this.blockOf(first + count - 1);
    for (let block = this.blockOf(first); block <= last; block++) {
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

  letGo(): void {
    this.#mapping.close();
  }

  close(): void {
    this.#mapping.close();
    this.#state.free(this.area);
  }

  #resume(bytes: number): void {
    const chunk = new Uint32Array(CHUNK_BYTES / 4);
    for (const [n, set] of [this.ballooned, this.pending].entries()) {
      for (let at = 0; at < bytes; at += CHUNK_BYTES) {
        const words = chunk.subarray(0, Math.min(CHUNK_BYTES, bytes - at) / 4);
        this.#state.read(
          this.area.offset + n * bytes + at,
          new Uint8Array(words.buffer, 0, words.byteLength),
        );
        set.know(at / 4, words);
      }
    }
    // It ended between the two.
    for (const { first, count } of [...this.pending.runs()]) {
      if (!this.ballooned.covers(first, count)) this.pending.remove(first, count);
    }
  }

  /** The block that a page is in. */
  blockOf(page: number): number {
    return Math.floor((page + this.#lead) / BLOCK_PAGES);
  }
}
