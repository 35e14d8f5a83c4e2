/** Words for which one bit of the index stands: a cache line of them, 512 pages. */
const BLOCK_WORDS = 16;
const BLOCK_PAGES = 32 * BLOCK_WORDS;

/**
 * A set of pages as one bit each, over memory that somebody else owns (a memfd view). It works in 32-bit words:
 * a run of pages costs one step for every 32 of them. `size` always equals the number of bits set.
 *
 * Where the set was never added to, its memory is not looked at: an index of our own knows the blocks that may hold
 * something, so a large set that holds little costs little, and its memfd stays sparse.
 */
export class PageSet {
  readonly #words: Uint32Array;
  readonly #index: Uint32Array;
  readonly pages: number;
  size = 0;

  /** What `bits` holds already is made known by know(). */
  constructor(bits: ArrayBuffer, pages: number) {
    this.#words = new Uint32Array(bits, 0, Math.ceil(pages / 32));
    this.#index = new Uint32Array(Math.ceil(pages / BLOCK_PAGES / 32));
    this.pages = pages;
  }

  static bytesFor(pages: number): number {
    return Math.ceil(pages / 32) * 4;
  }

  /** The memory holds `words`, from its word `at` on: pages that were in the set before it was made. */
  know(at: number, words: Uint32Array): void {
    for (const [n, word] of words.entries()) {
      if (word === 0 || at + n >= this.#words.length) continue;
      // Beyond the last page there is nothing, whatever the memory says.
      const inside = word & maskFrom((at + n) * 32, this.pages);
      if (inside !== (word | 0)) this.#words[at + n] = inside;
      this.size += countBits(inside);
      this.#mark(at + n);
    }
  }

  has(page: number): boolean {
    return (((this.#words[page >>> 5] ?? 0) >>> (page & 31)) & 1) === 1;
  }

  /** Adds pages first to first + count - 1; returns how many were not in the set before. */
  add(first: number, count: number): number {
    const words = this.#words;
    let added = 0;
    for (let page = first, end = first + count; page < end;) {
      const word = Math.floor(page / 32);
      const mask = maskFrom(page, end);
      const old = words[word] ?? 0;
      if ((mask & ~old) !== 0) {
        added += countBits(mask & ~old);
        words[word] = old | mask;
        this.#mark(word);
      }
      page = (word + 1) * 32;
    }
    this.size += added;
    return added;
  }

  /** Removes pages first to first + count - 1; returns how many were in the set. */
  remove(first: number, count: number): number {
    const words = this.#words;
    let removed = 0;
    for (let page = first, end = first + count; page < end;) {
      if (page % BLOCK_PAGES === 0) {
        page = this.#nextBlock(page / BLOCK_PAGES) * BLOCK_PAGES;
        if (page >= end) break;
      }
      const word = Math.floor(page / 32);
      const mask = maskFrom(page, end);
      const old = words[word] ?? 0;
      if ((mask & old) !== 0) {
        removed += countBits(mask & old);
        words[word] = old & ~mask;
      }
      page = (word + 1) * 32;
    }
    this.size -= removed;
    return removed;
  }

  /** Whether all of first to first + count - 1 are in the set. */
  covers(first: number, count: number): boolean {
    for (let page = first, end = first + count; page < end;) {
      const word = Math.floor(page / 32);
      const mask = maskFrom(page, end);
      if (((this.#words[word] ?? 0) & mask) !== (mask | 0)) return false;
      page = (word + 1) * 32;
    }
    return true;
  }

  /** The maximal runs of pages in the set that lie between `first` and `end`, lowest first. */
  *runs(first = 0, end = this.pages): Generator<{ first: number; count: number }> {
    let page = this.#next(first, end, true);
    while (page < end) {
      const stop = this.#next(page, end, false);
      yield { first: page, count: stop - page };
      page = this.#next(stop, end, true);
    }
  }

  clear(): void {
    for (let block = this.#nextBlock(0); block < this.#blocks; block = this.#nextBlock(block + 1)) {
      this.#words.fill(0, block * BLOCK_WORDS, (block + 1) * BLOCK_WORDS);
    }
    this.#index.fill(0);
    this.size = 0;
  }

  /** The first page from `page` on whose membership is `member`, or `end`. */
  #next(page: number, end: number, member: boolean): number {
    while (page < end) {
      if (member && page % BLOCK_PAGES === 0) {
        page = this.#nextBlock(page / BLOCK_PAGES) * BLOCK_PAGES;
        if (page >= end) break;
      }
      const word = this.#words[Math.floor(page / 32)] ?? 0;
      const wanted = (member ? word : ~word) & (-1 << (page & 31));
      if (wanted !== 0) return Math.min(end, Math.floor(page / 32) * 32 + lowestBit(wanted));
      page = (Math.floor(page / 32) + 1) * 32;
    }
    return end;
  }

  #mark(word: number): void {
    const block = Math.floor(word / BLOCK_WORDS);
    this.#index[block >>> 5] = (this.#index[block >>> 5] ?? 0) | (1 << (block & 31));
  }

  get #blocks(): number {
    return Math.ceil(this.pages / BLOCK_PAGES);
  }

  /** The first block from `block` on that may hold something, or one beyond the last. */
  #nextBlock(block: number): number {
    while (block < this.#blocks) {
      const marked = (this.#index[block >>> 5] ?? 0) & (-1 << (block & 31));
      if (marked !== 0) return (block >>> 5) * 32 + lowestBit(marked);
      block = ((block >>> 5) + 1) * 32;
    }
    return this.#blocks;
  }
}

/** The bits of page's word that belong to pages from `page` up to `end`. */
function maskFrom(page: number, end: number): number {
  const low = -1 << (page & 31);
  const rest = end - (page - (page & 31));
  return rest >= 32 ? low : low & ~(-1 << rest);
}

function countBits(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}
