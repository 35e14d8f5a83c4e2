/**
 * A set of pages as one bit each, over memory that somebody else owns (a memfd view). It works in 32-bit words:
 * a run of pages costs one step for every 32 of them. `size` always equals the number of bits set.
 */
export class PageSet {
  readonly #words: Uint32Array;
  readonly pages: number;
  size = 0;

  constructor(bits: ArrayBuffer, pages: number) {
    this.#words = new Uint32Array(bits, 0, Math.ceil(pages / 32));
    this.pages = pages;
  }

  static bytesFor(pages: number): number {
    return Math.ceil(pages / 32) * 4;
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
      added += countBits(mask & ~old);
      words[word] = old | mask;
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
      const word = Math.floor(page / 32);
      const mask = maskFrom(page, end);
      const old = words[word] ?? 0;
      removed += countBits(mask & old);
      words[word] = old & ~mask;
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
    if (this.size === 0) return;
    // Only words that hold something are written: a sparse set over a memfd stays sparse.
    for (const run of [...this.runs()]) this.remove(run.first, run.count);
  }

  /** The first page from `page` on whose membership is `member`, or `end`. */
  #next(page: number, end: number, member: boolean): number {
    while (page < end) {
      const word = this.#words[Math.floor(page / 32)] ?? 0;
      const wanted = (member ? word : ~word) & (-1 << (page & 31));
      if (wanted !== 0) return Math.min(end, Math.floor(page / 32) * 32 + lowestBit(wanted));
      page = (Math.floor(page / 32) + 1) * 32;
    }
    return end;
  }
}

/** The bits of page's word that belong to pages from `page` up to `end`. */
function maskFrom(page: number, end: number): number {
  const low = -1 << (page & 31);
  const left = end - (page - (page & 31));
  return left >= 32 ? low : low & ~(-1 << left);
}

function countBits(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}
