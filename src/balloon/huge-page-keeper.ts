import type { Shortage } from '../memory/refill.js';
import type { GuestRegion } from '../memory/region.js';

/** What a balloon tells of memory on hugetlbfs, whose pages do not come back by themselves once they were discarded. */
export interface HugePageObserver {
  /** A driver started. */
  restarted(): void;
  /** Pages are kept: the guest uses them again without telling first. Once for each driver and reason. */
  kept(why: 'reports' | 'driver'): void;
  /** Guest memory lacks pages, and the pool has none; told again as long as that is so. */
  short(shortage: Shortage): void;
  /** It has them again. */
  enough(): void;
}

/** By what a guest gives pages up, and uses them again without telling first. */
type Untold = Parameters<HugePageObserver['kept']>[0];

/**
 * Which pages of hugetlbfs are kept. A discarded page has no claim to the pool any more: a guest that touches it while the
 * pool is empty ends its VMM by SIGBUS. So pages that the guest uses again without telling first are not discarded, unless
 * the operator wants that.
 */
export class HugePageKeeper {
  readonly #discardsUntold: boolean;
  readonly #observer: HugePageObserver;
  readonly #told = new Set<Untold>();

  constructor(discardsUntold: boolean, observer: HugePageObserver) {
    this.#discardsUntold = discardsUntold;
    this.#observer = observer;
  }

  /** Whether these pages of the region are kept, which is told once. */
  keeps(region: GuestRegion, why: Untold): boolean {
    if (region.missing === null || this.#discardsUntold) return false;
    if (!this.#told.has(why)) {
      this.#told.add(why);
      this.#observer.kept(why);
    }
    return true;
  }

  /** Another driver. */
  restart(): void {
    this.#told.clear();
    this.#observer.restarted();
  }
}
