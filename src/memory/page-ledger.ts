import { createMemfd } from '../os/memfd.js';
import { closeFd } from '../os/fd.js';
import { Mapping } from '../os/mapping.js';
import { PageSet } from './page-set.js';

/**
 * What is known of each 4 KiB page of one memory region: whether it is in the balloon, and whether its discard
 * is still owed (inhibited, failed, or the rest of a larger backing page is still with the guest).
 * Invariant: a page that owes a discard is in the balloon.
 *
 * Two bits a page in a memfd, 64 KiB for each GiB of guest memory; parts never ballooned cost nothing.
 */
export class PageLedger {
  readonly ballooned: PageSet;
  readonly pending: PageSet;
  readonly #mapping: Mapping;

  constructor(pages: number) {
    const bytes = Math.ceil(PageSet.bytesFor(pages) / 4096) * 4096;
    const fd = createMemfd('balloond-ledger', 2 * bytes);
    try {
      this.#mapping = Mapping.map(fd, 0, 2 * bytes);
    } finally {
      closeFd(fd);
    }
    this.ballooned = new PageSet(this.#mapping.view(0, bytes), pages);
    this.pending = new PageSet(this.#mapping.view(bytes, bytes), pages);
  }

  /** The guest gave these pages up. Returns how many were not in the balloon before. */
  inflate(first: number, count: number): number {
    this.pending.add(first, count);
    return this.ballooned.add(first, count);
  }

  /** The guest takes these pages back. Returns how many were in the balloon. */
  deflate(first: number, count: number): number {
    this.pending.remove(first, count);
    return this.ballooned.remove(first, count);
  }

  /** The guest started over: every page is its own again. */
  clear(): void {
    this.ballooned.clear();
    this.pending.clear();
  }

  close(): void {
    this.#mapping.close();
  }
}
