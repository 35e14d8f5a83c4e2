import type { GuestRam } from '../support/guest-ram.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { StampedPages, type Part } from '../support/stamped-pages.js';

/**
 * Whose each page is: the guest's, unless it is in the balloon or lies in a report that is not acked. What is the
 * guest's is in use at once, so that a discard of it shows.
 */
export class PageOwners {
  readonly #pages: StampedPages;
  readonly #byPfn = new Map<number, number>();
  /** When a page was last given up, in numbers of clock(); 0: it is not in the balloon. */
  readonly #givenAt: Float64Array;
  readonly #reports: Uint32Array;
  #now = 0;

  constructor(parts: readonly Part[]) {
    this.#pages = new StampedPages(parts);
    for (let page = 0; page < this.#pages.count; page++) this.#byPfn.set(this.#pages.pfn(page), page);
    this.#givenAt = new Float64Array(this.#pages.count);
    this.#reports = new Uint32Array(this.#pages.count);
  }

  static of(ram: GuestRam): PageOwners {
    return new PageOwners(ram.regions.map(({ gpa, file }) => ({ gpa, file, unitBytes: PAGE_BYTES })));
  }

  /** Grows with every call. */
  clock(): number {
    return ++this.#now;
  }

  /** Page frame numbers of ours that lie between the two as a whole. */
  within(first: number, end: number): number[] {
    return [...this.#byPfn.keys()].filter((pfn) => pfn >= first && pfn + 1 <= end);
  }

  give(pfns: Iterable<number>): void {
    for (const page of this.#known(pfns)) {
      this.#givenAt[page] = this.clock();
      this.#pages.give(page);
    }
  }

  /** They are back, but those that were given up again since `at`. */
  take(pfns: Iterable<number>, at: number): void {
    for (const page of this.#known(pfns)) {
      if ((this.#givenAt[page] ?? 0) > at) continue;
      this.#givenAt[page] = 0;
      this.#use(page);
    }
  }

  report(pfns: Iterable<number>): void {
    for (const page of this.#known(pfns)) {
      this.#reports[page] = (this.#reports[page] ?? 0) + 1;
      this.#pages.give(page);
    }
  }

  endReport(pfns: Iterable<number>): void {
    for (const page of this.#known(pfns)) {
      this.#reports[page] = Math.max(0, (this.#reports[page] ?? 0) - 1);
      this.#use(page);
    }
  }

  takeAll(): void {
    this.#givenAt.fill(0);
    this.#reports.fill(0);
    for (const page of this.#byPfn.values()) this.#use(page);
  }

  /** Throws when a page of the guest was discarded. */
  check(): void {
    const lost = this.#pages.lost();
    if (lost.length === 0) return;
    throw new Error(`${lost.length} pages of the guest were discarded: ${lost.slice(0, 8).join(' ')}`);
  }

  close(): void {
    this.#pages.close();
  }

  #use(page: number): void {
    if (this.#givenAt[page] === 0 && this.#reports[page] === 0 && this.#pages.isGiven(page)) {
      this.#pages.use(page);
    }
  }

  *#known(pfns: Iterable<number>): Generator<number> {
    for (const pfn of pfns) {
      const page = this.#byPfn.get(pfn);
      if (page !== undefined) yield page;
    }
  }
}
