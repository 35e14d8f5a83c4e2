import { PFN_BYTES } from '../../protocol/virtio/balloon.js';

/**
 * Page frame numbers in, runs of consecutive pages out. Numbers are collected from any number of buffers, in any
 * order, with repeats, and leave as the fewest runs that cover them, lowest first.
 */
export class PageRuns {
  readonly entryBytes = PFN_BYTES;
  #pfns = new Uint32Array(1024);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds the le32 page frame numbers of a buffer whose length is a multiple of 4 bytes. */
  add(bytes: Uint8Array): void {
    const more = bytes.length / 4;
    if (this.#count + more > this.#pfns.length) {
      const larger = new Uint32Array(2 * (this.#count + more));
      larger.set(this.#pfns.subarray(0, this.#count));
      this.#pfns = larger;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < bytes.length; at += 4) this.#pfns[this.#count++] = view.getUint32(at, true);
  }

  /** Forgets what was added. */
  clear(): void {
    this.#count = 0;
  }

  /** The lowest and the highest number added; an empty range when there is none. */
  bounds(): { first: number; last: number } {
    let first = Infinity;
    let last = -1;
    for (let at = 0; at < this.#count; at++) {
      const pfn = this.#pfns[at] ?? 0;
      if (pfn < first) first = pfn;
      if (pfn > last) last = pfn;
    }
    return { first, last };
  }

  /** Calls `visit` for each run and forgets what was added. */
  drain(visit: (first: number, count: number) => void): void {
    const pfns = this.#pfns.subarray(0, this.#count);
    this.#count = 0;
    if (!isAscending(pfns)) pfns.sort();
    for (let at = 0; at < pfns.length;) {
      const first = pfns[at] ?? 0;
      let last = first;
      // A repeat continues the run without making it longer.
      while (++at < pfns.length && (pfns[at] ?? 0) - last <= 1) last = pfns[at] ?? 0;
      visit(first, last - first + 1);
    }
  }
}

function isAscending(pfns: Uint32Array): boolean {
  for (let at = 1; at < pfns.length; at++) {
    if ((pfns[at] ?? 0) < (pfns[at - 1] ?? 0)) return false;
  }
  return true;
}
