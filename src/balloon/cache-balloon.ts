import { BALLOON_PAGE_BYTES, PFN_BYTES } from '../../protocol/virtio/balloon.js';
import {
  CACHE_BALLOON_QUEUES,
  CACHE_CONFIG_PAGES_FREE,
  CACHE_CONFIG_PAGES_TOTAL,
  CacheBalloonFeature,
  CACHEQ,
  decodeRange,
  RANGE_BYTES,
  RECLAIMQ,
  type CacheBalloonFeatureName,
} from '../../protocol/virtio/cache-balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { Discarder, type DiscardResult } from '../memory/discard.js';
import { DriverError } from '../memory/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { PAGE_BYTES, type GuestRegion } from '../memory/region.js';
import { readChain, type Chain } from '../virtqueue/chain.js';
import type { Device, DeviceHost } from '../virtqueue/device.js';
import type { BalloonObserver } from './observer.js';
import { BlockRuns } from './block-runs.js';
import { CacheConfig } from './cache-config.js';
import { CacheStats } from './cache-stats.js';
import { DriverPast } from './driver-past.js';
import { DriverWords } from './driver-words.js';
import { HugePageKeeper } from './huge-page-keeper.js';
import { cutRun } from './page-slices.js';
import { BalloonTotals } from './totals.js';

/** Longest buffer: 4,096 blocks, 16 times what drivers send. */
const MAX_BUFFER_BYTES = 32 * 1024;
const scratch = new Uint8Array(MAX_BUFFER_BYTES);

/** Of the words of the state file: those of the config space come first. */
const DRIVER_WORDS = 7;

/**
 * The page cache balloon (docs/cache-balloon.md). The driver names pages that it put into its page cache, and its
 * reclaim may use them as soon as the buffer is back: so they are discarded before that or never, and nothing is owed.
 * What reclaim takes back is told late (TELL_RECLAIM) or not at all; only counters depend on it.
 *
 * The target is an upper limit: the guest decides how much of it is in the balloon.
 */
export class CacheBalloon implements Device {
  readonly offeredFeatures: FeatureBits;
  readonly queueCount = CACHE_BALLOON_QUEUES;
  readonly discardsUntold: boolean;
  readonly totals: BalloonTotals;
  readonly stats: CacheStats;
  /** Its guest takes pages back by itself, so that none has to be absent. */
  readonly absentPages = null;
  readonly #memory: GuestMemory;
  readonly #host: DeviceHost;
  readonly #observer: BalloonObserver;
  readonly #config: CacheConfig;
  readonly #driver: DriverWords;
  readonly #past: DriverPast;
  readonly #discarder: Discarder;
  readonly #keeper: HugePageKeeper;
  readonly #added = new BlockRuns();
  readonly #reclaimed = new BlockRuns();
  #acked: FeatureBits = 0n;
  #running = false;
  #inhibited: string | null = null;

  constructor(
    memory: GuestMemory,
    host: DeviceHost,
    observer: BalloonObserver,
    offeredFeatures: FeatureBits,
    discardsUntold: boolean,
  ) {
    this.#memory = memory;
    this.#host = host;
    this.#observer = observer;
    this.#config = new CacheConfig(memory.state);
    this.#driver = new DriverWords(memory.state, DRIVER_WORDS);
    const [config, driver] = [this.#config, this.#driver];
    this.#past = new DriverPast({ kind: 'cache-balloon', memory, config, driver, stats: null });
    this.totals = new BalloonTotals(memory.state);
    if (this.#driver.isPaused) this.#config.forgetDriver();
    // What inhibited a process that is gone may be no more; where it is, that is said again.
    this.#config.lock = false;
    this.offeredFeatures = offeredFeatures;
    this.discardsUntold = discardsUntold;
    this.#keeper = new HugePageKeeper(discardsUntold, observer.hugePages);
    this.#discarder = new Discarder(memory, { quietMs: 0, longestMs: 0 }, (result) => this.#count(result));
    this.stats = new CacheStats(() => {
      this.#config.askForStats();
      this.#host.configChanged();
    });
  }

  get targetBytes(): number {
    return this.#config.numPages * BALLOON_PAGE_BYTES;
  }

  /** Where the ledger counts, and began later than the driver, the two have to agree first. */
  get actualUnknown(): boolean {
    return this.#driver.unknown > 0;
  }

  get actualBytes(): number {
    const pages =
      this.#running && this.#has('VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM')
        ? this.#memory.balloonedPages
        : this.#config.actual;
    return pages * BALLOON_PAGE_BYTES;
  }

  /** The same, also where its driver stopped since. */
  get heldBytes(): number {
    if (this.#running) return this.actualBytes;
    const told = this.#has('VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM');
    const pages = told ? this.#memory.balloonedPages : this.#driver.actual;
    return pages * BALLOON_PAGE_BYTES;
  }

  get inhibited(): string | null {
    return this.#inhibited;
  }

  /** How long the discard that is under way has been, in milliseconds; 0 when there is none. */
  get discardingMs(): number {
    return this.#discarder.busyMs;
  }

  /** Lets the driver hold up to `bytes`, rounded down to whole pages. */
  setTarget(bytes: number): void {
    const pages = Math.floor(bytes / BALLOON_PAGE_BYTES);
    if (pages === this.#config.numPages) return;
    this.#config.numPages = pages;
    this.#host.configChanged();
  }

  remind(): void {
    this.#host.configChanged();
  }

  /**
   * With a reason: nothing is discarded, and a driver that can is asked for all pages, until it is null again. Resolves
   * when no discard is under way any more.
   */
  setInhibited(reason: string | null): Promise<void> {
    this.#inhibited = reason;
    if (this.#config.lock !== (reason !== null)) {
      this.#config.lock = reason !== null;
      this.#host.configChanged();
    }
    if (reason === null) {
      if (this.#running) this.#discarder.start();
      return Promise.resolve();
    }
    this.#discarder.stop();
    return new Promise((resolve) => {
      if (this.#discarder.interrupt(resolve)) resolve();
    });
  }

  readConfig(offset: number, lenBytes: number): Uint8Array {
    return this.#config.read(offset, lenBytes);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const before = this.#config.actual;
    const answered = this.#config.write(offset, bytes);
    if (this.#config.actual !== before) {
      const told = this.#config.actual * BALLOON_PAGE_BYTES;
      if (this.#running && told === this.actualBytes) this.#driver.told();
      this.#observer.actualChanged();
    }
    if (!answered) return;
    this.stats.receive(
      this.#config.get(CACHE_CONFIG_PAGES_TOTAL) * BALLOON_PAGE_BYTES,
      this.#config.get(CACHE_CONFIG_PAGES_FREE) * BALLOON_PAGE_BYTES,
    );
    this.#observer.statsReceived();
  }

  setFeatures(acked: FeatureBits): void {
    this.#acked = acked;
  }

  start(resumed: boolean): void {
    const beginning = this.#past.beginning(resumed);
    if (beginning === 'new' || beginning === 'unknown') {
      for (const region of this.#memory.regions) region.ledger.clear();
      this.stats.clear();
    }
    const announces = this.#past.goOn(beginning, resumed, false);
    this.#driver.begin(beginning);
    if (announces) this.#host.configChanged();
    this.#running = true;
    this.#keeper.restart();
    if (this.#inhibited === null) this.#discarder.start();
  }

  stop(): void {
    this.#running = false;
    this.#driver.stop(this.#config.actual, 0);
    this.#config.forgetDriver();
    this.#discarder.stop();
  }

  serves(): boolean {
    return true;
  }

  forget(queue: number): void {
    if (queue === RECLAIMQ) {
      this.#reclaimed.clear();
      return;
    }
    this.#added.clear();
    this.#discarder.dropReports();
  }

  handle(queue: number, chain: Chain): number {
    if (queue === CACHEQ) this.#read(chain, this.#added);
    else this.#read(chain, this.#reclaimed);
    return 0;
  }

  flush(queue: number, done: () => void): boolean {
    if (queue === RECLAIMQ) {
      this.#takeBack();
      return true;
    }
    const tells = this.#has('VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM');
    this.#eachRun(this.#added, (region, first, count) => {
      if (tells) region.ledger.inflateKept(first, count);
      this.totals.count('inflated', count * PAGE_BYTES);
      if (this.#inhibited === null && !this.#keeper.keeps(region, 'driver')) {
        this.#discarder.report(region, first * PAGE_BYTES, count * PAGE_BYTES);
      }
    });
    return this.#discarder.afterReports(done);
  }

  interrupt(idle: () => void): boolean {
    return this.#discarder.interrupt(idle);
  }

  release(idle: () => void): boolean {
    return this.interrupt(idle);
  }

  goOn(): void {
    // Nothing was stopped for it.
  }

  saveState(): Uint8Array {
    return this.#past.save();
  }

  loadState(state: Uint8Array): void {
    this.#past.load(state);
  }

  #has(feature: CacheBalloonFeatureName): boolean {
    return hasFeature(this.#acked, CacheBalloonFeature[feature]);
  }

  #read(chain: Chain, into: BlockRuns): void {
    const bytes = readChain(this.#memory, chain, scratch);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const entryBytes = this.#has('VIRTIO_CACHE_BALLOON_F_RANGES') ? RANGE_BYTES : PFN_BYTES;
    if (bytes.length % entryBytes !== 0) {
      throw new DriverError(`entries in ${bytes.length} bytes, not a multiple of ${entryBytes}`);
    }
    if (entryBytes === PFN_BYTES) {
      for (let at = 0; at < bytes.length; at += PFN_BYTES) into.add(view.getUint32(at, true), 1);
      return;
    }
    // All of a buffer or nothing.
    const blocks = [];
    for (let at = 0; at < bytes.length; at += RANGE_BYTES) {
      const [low, high] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
      const block = decodeRange(low, high);
      if (block === null) {
        const entry = (BigInt(high) << 32n) | BigInt(low);
        throw new DriverError(`0x${entry.toString(16)} is no aligned block of guest memory`);
      }
      blocks.push(block);
    }
    for (const { firstPfn, pages } of blocks) into.add(firstPfn, pages);
  }

  #takeBack(): void {
    const tells = this.#has('VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM');
    this.#eachRun(this.#reclaimed, (region, first, count) => {
      if (tells) region.ledger.deflate(first, count);
      this.totals.count('deflated', count * PAGE_BYTES);
    });
  }

  #eachRun(runs: BlockRuns, visit: (region: GuestRegion, first: number, count: number) => void): void {
    let outside = 0;
    runs.drain((firstPfn, pages) => {
      outside += cutRun(this.#memory, firstPfn, pages, visit);
    });
    if (outside > 0) this.#observer.pagesOutside(outside);
  }

  #count(result: DiscardResult): void {
    this.totals.countDiscard(result.discardedBytes, result.seconds);
    this.#observer.discardsTried(result.error, result.failedRanges, result.seconds);
  }
}
