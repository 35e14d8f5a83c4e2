import { BALLOON_PAGE_BYTES } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature } from '../../protocol/virtio/cache-balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import type { Discarder } from '../memory/discard.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { PAGE_BYTES } from '../memory/region.js';
import type { Chain } from '../virtqueue/chain.js';
import type { CacheConfig } from './cache-config.js';
import type { HugePageKeeper } from './huge-page-keeper.js';
import type { BalloonObserver } from './observer.js';
import { drainRuns, readRuns, runsOf } from './runs.js';
import type { BalloonTotals } from './totals.js';

/** What the page cache balloon has of the device that it is part of. */
interface Whole {
  readonly memory: GuestMemory;
  readonly host: { configChanged(): void };
  readonly observer: BalloonObserver;
  readonly discarder: Discarder;
  readonly keeper: HugePageKeeper;
  readonly config: CacheConfig;
  readonly totals: BalloonTotals;
  readonly discards: () => boolean;
  /** The ledger has the pages of this balloon; false: those of another one, and the driver's word counts here. */
  readonly countsPages: boolean;
}

/**
 * The page cache balloon (docs/cache-balloon.md): two queues and a config space, of a device of their own or of the
 * traditional balloon. The driver names pages that it put into its page cache, and its reclaim may use them as soon as the
 * buffer is back: so they are discarded before that or never, and nothing is owed. What reclaim takes back is told late
 * (TELL_RECLAIM) or not at all; only counters depend on it.
 */
export class CachePart {
  readonly totals: BalloonTotals;
  readonly #of: Whole;
  #added = runsOf(0n);
  #reclaimed = runsOf(0n);
  #countsPages = false;

  constructor(of: Whole) {
    this.#of = of;
    this.totals = of.totals;
    // What inhibited a process that is gone may be no more; where it is, that is said again.
    of.config.lock = false;
  }

  get targetBytes(): number {
    return this.#of.config.numPages * BALLOON_PAGE_BYTES;
  }

  get actualBytes(): number {
    return this.#of.config.actual * BALLOON_PAGE_BYTES;
  }

  /** Lets the driver hold up to `bytes`, rounded down to whole pages. */
  setTarget(bytes: number): void {
    const { config, host } = this.#of;
    const pages = Math.floor(bytes / BALLOON_PAGE_BYTES);
    if (pages === config.numPages) return;
    config.numPages = pages;
    host.configChanged();
  }

  /** A driver that can is asked for all pages, until that ends. */
  set locked(asked: boolean) {
    const { config, host } = this.#of;
    if (config.lock === asked) return;
    config.lock = asked;
    host.configChanged();
  }

  setFeatures(acked: FeatureBits): void {
    this.#added = runsOf(acked);
    this.#reclaimed = runsOf(acked);
    this.#countsPages =
      this.#of.countsPages && hasFeature(acked, CacheBalloonFeature.VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM);
  }

  forget(role: 'cache' | 'reclaim'): void {
    if (role === 'reclaim') {
      this.#reclaimed.clear();
      return;
    }
    this.#added.clear();
    this.#of.discarder.dropReports();
  }

  handle(role: 'cache' | 'reclaim', chain: Chain): number {
    readRuns(this.#of.memory, chain, role === 'cache' ? this.#added : this.#reclaimed);
    return 0;
  }

  flush(role: 'cache' | 'reclaim', done: () => void): boolean {
    const { memory, observer, discarder, keeper, discards } = this.#of;
    const outside = (pages: number): void => observer.pagesOutside(pages);
    if (role === 'reclaim') {
      drainRuns(memory, this.#reclaimed, outside, (region, first, count) => {
        if (this.#countsPages) region.ledger.deflate(first, count);
        this.totals.count('deflated', count * PAGE_BYTES);
      });
      return true;
    }
    drainRuns(memory, this.#added, outside, (region, first, count) => {
      if (this.#countsPages) region.ledger.inflateKept(first, count);
      this.totals.count('inflated', count * PAGE_BYTES);
      if (discards() && !keeper.keeps(region, 'driver')) {
        discarder.report(region, first * PAGE_BYTES, count * PAGE_BYTES);
      }
    });
    return discarder.afterReports(done);
  }
}
