/**
 * Blocks of pages in, runs of consecutive pages out: as PageRuns, for blocks of any length anywhere in 64 bits of
 * address.
 */
export class BlockRuns {
  #blocks: { firstPfn: number; pages: number }[] = [];

  add(firstPfn: number, pages: number): void {
    const last = this.#blocks.at(-1);
    if (last !== undefined && last.firstPfn + last.pages === firstPfn) last.pages += pages;
    else this.#blocks.push({ firstPfn, pages });
  }

  /** Forgets what was added. */
  clear(): void {
    this.#blocks = [];
  }

  /** Calls `visit` for each run, lowest first, and forgets what was added. */
  drain(visit: (firstPfn: number, pages: number) => void): void {
    const blocks = this.#blocks.sort((a, b) => a.firstPfn - b.firstPfn);
    this.#blocks = [];
    let first = 0;
    let end = -1;
    for (const { firstPfn, pages } of blocks) {
      if (firstPfn > end) {
        if (end > first) visit(first, end - first);
        first = firstPfn;
        end = firstPfn + pages;
      } else {
        end = Math.max(end, firstPfn + pages);
      }
    }
    if (end > first) visit(first, end - first);
  }
}
