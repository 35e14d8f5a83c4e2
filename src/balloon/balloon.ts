/**
 * The devices: balloon (this file) and cache-balloon, which have base in common, and cache-part, a part of both. src/vm/kinds.ts
 * makes one for a session, which calls, in this order: setFeatures(), start(), then for each drain handle() a chain at a time
 * (runs collect pages) and flush() (ledger, discards, acks), and stop(). config and cache-config are their config spaces,
 * queue-roles says which queue is which, guest-stats and cache-stats hold statistics, totals count. A device never sees a ring
 * or a socket.
 */
import {
  BALLOON_PAGE_BYTES,
  BalloonFeature,
  CONFIG_BYTES,
  type BalloonQueue,
} from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature } from '../../protocol/virtio/cache-balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { AbsentPages } from '../memory/absent-pages.js';
import { DriverError } from '../memory/errors.js';
import { deflatePages, inflatePages } from '../memory/owed-pages.js';
import { Refiller } from '../memory/refill.js';
import { PAGE_BYTES, type GuestRegion } from '../memory/region.js';
import type { Chain } from '../virtqueue/chain.js';
import type { Device } from '../virtqueue/device.js';
import { BalloonBase, type BalloonParts } from './base.js';
import { CacheConfig } from './cache-config.js';
import { CachePart } from './cache-part.js';
import { BalloonConfig } from './config.js';
import { DriverPast } from './driver-past.js';
import { GuestStats } from './guest-stats.js';
import { leastQueues, queueCount, queueRole } from './queue-roles.js';
import { drainRuns, readBuffer, readRuns, runsOf, type Runs } from './runs.js';
import { BalloonTotals, SHARED_TOTALS } from './totals.js';

/** A discard behind the ack waits no longer than this for others to be merged with. */
const LONGEST_DELAY_MS = 50;

/** So much may be acked and not yet discarded; what comes then waits for a sweep. */
const MAX_BEHIND_BYTES = 256 * 2 ** 20;

/** Of the words of the state file: those of the config space come first, and the page cache balloon's last. */
const DRIVER_WORDS = 4;
const CACHE_WORDS = 8;

/**
 * The traditional memory balloon (virtio 1.3, 5.5). The host moves a target; the driver answers with pages it
 * gives up (inflate) or wants back (deflate). A page outside the balloon is never discarded, except where the driver
 * reports it free.
 *
 * A driver that must tell before it uses a page again (VIRTIO_BALLOON_F_MUST_TELL_HOST) gets its buffer back as soon
 * as the ledger knows its pages; their discard follows, merged with others. One that need not tell may use them as
 * soon as it has its buffer back, so its pages are discarded before that or never.
 *
 * Stopped devices may be paused or reset, and only the next start tells which: until then `actual` reads as 0,
 * nothing is discarded, and the ledger is kept. A process that takes a running device over starts it as resumed.
 *
 * The page cache balloon is a part of it for drivers that ack its feature bits.
 */
export class Balloon extends BalloonBase<BalloonConfig> implements Device {
  readonly queueCount: number;
  readonly leastQueues: number;
  readonly stats: GuestStats;
  readonly absentPages: AbsentPages;
  protected readonly past: DriverPast;
  readonly #cacheConfig: CacheConfig;
  readonly #cache: CachePart;
  #inflating = runsOf(0n);
  #deflating = runsOf(0n);
  readonly #refiller: Refiller;
  #roles: (BalloonQueue | null)[] = [];
  /** Whatever was taken of huge pages was made sure of, and the device is about to be stopped. */
  #released = false;

  constructor(parts: BalloonParts) {
    const { memory, host, observer, offered, discards } = parts;
    const config = new BalloonConfig(memory.state);
    const delay = { quietMs: discards.delayMs, longestMs: LONGEST_DELAY_MS };
    super(parts, { config, word: DRIVER_WORDS, delay });
    const { driver, discarder, keeper } = this;
    if (driver.isPaused) config.forgetDriver();
    this.queueCount = queueCount(offered);
    this.leastQueues = leastQueues(offered);
    const tellsFirst = (): boolean => this.#mustTell;
    this.#refiller = new Refiller(memory, {
      get discarding() {
        return discarder.busy;
      },
      get tellsFirst() {
        return tellsFirst();
      },
      rest: () => discarder.goOn(),
      owes: (pages) => discarder.owe(pages),
      short: (shortage) => observer.hugePages.short(shortage),
      enough: () => observer.hugePages.enough(),
    });
    this.absentPages = new AbsentPages(memory, discarder, {
      running: () => this.running && !this.#refiller.ending,
      tellsFirst,
      inhibited: () => this.inhibited !== null,
      moved: () => this.totals.inflated + this.totals.deflated,
    });
    this.stats = new GuestStats((chain) => host.complete(this.#roles.indexOf('stats'), chain, 0));
    const cache = new CacheConfig(memory.state, { offset: CONFIG_BYTES, word: CACHE_WORDS });
    this.#cacheConfig = cache;
    this.#cache = new CachePart({
      ...{ memory, host, observer, discarder, keeper, config: cache },
      totals: new BalloonTotals(memory.state, SHARED_TOTALS),
      discards: () => this.inhibited === null,
      countsPages: false,
    });
    this.past = new DriverPast({ kind: 'balloon', memory, config, driver, stats: this.stats, cache });
  }

  /** The page cache balloon; null: the driver has none. */
  get cache(): CachePart | null {
    return hasFeature(this.acked, CacheBalloonFeature.VIRTIO_CACHE_BALLOON_F_RANGES) ? this.#cache : null;
  }

  get actualBytes(): number {
    return (this.actualUnknown ? this.memory.balloonedPages : this.config.actual) * BALLOON_PAGE_BYTES;
  }

  /** The size that the driver last wrote, also where it stopped since. */
  get heldBytes(): number {
    const stopped = this.driver.isPaused && !this.actualUnknown;
    return stopped ? this.driver.actual * BALLOON_PAGE_BYTES : this.actualBytes;
  }

  /** Tells the driver of its target again: one that gave up on it looks at it only then. */
  remind(): void {
    this.driver.askAnew();
    this.host.configChanged();
  }

  readConfig(offset: number, lenBytes: number): Uint8Array {
    const bytes = this.config.read(offset, lenBytes, this.running ? this.driver.unknown : 0);
    this.#cacheConfig.fill(offset, bytes);
    return bytes;
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const before = this.config.actual;
    const tells = this.config.write(offset, bytes) && this.running && this.actualUnknown;
    if (tells) {
      this.driver.told();
      this.host.configChanged();
    }
    if (tells || this.config.actual !== before) this.observer.actualChanged();
    this.#cacheConfig.write(offset, bytes);
  }

  override setFeatures(acked: FeatureBits): void {
    super.setFeatures(acked);
    this.#inflating = runsOf(acked);
    this.#deflating = runsOf(acked);
    this.#cache.setFeatures(acked);
  }

  start(resumed: boolean): void {
    this.begin(resumed, this.#mustTell);
    if (this.#poisoned) this.observer.poisonActive(this.config.poisonVal);
    this.#goOnBehind();
  }

  stop(): void {
    this.running = false;
    this.driver.stop(this.config.actual, this.config.poisonVal);
    this.config.forgetDriver();
    this.#roles = [];
    this.absentPages.forget();
    this.discarder.stop();
  }

  get unknownQueues(): readonly number[] {
    return this.#roles.flatMap((role, queue) => (role === null ? [queue] : []));
  }

  serves(queue: number, configured: readonly number[], present?: number): boolean {
    this.#roles[queue] ??= queueRole(queue, this.acked, configured, present);
    return this.#roles[queue] !== null;
  }

  forget(queue: number): void {
    const role = this.#roles[queue];
    if (role === 'stats') this.stats.forget();
    else if (role === 'inflate') this.#inflating.clear();
    else if (role === 'deflate') this.#forgetDeflates();
    else if (role === 'reporting') this.discarder.dropReports();
    else if (role === 'cache' || role === 'reclaim') this.#cache.forget(role);
  }

  handle(queue: number, chain: Chain): number | null {
    const role = this.#roles[queue];
    switch (role) {
      case 'inflate':
      case 'deflate':
        readRuns(this.memory, chain, role === 'inflate' ? this.#inflating : this.#deflating);
        return 0;
      case 'cache':
      case 'reclaim':
        return this.#cache.handle(role, chain);
      case 'stats':
        this.stats.receive(chain, readBuffer(this.memory, chain));
        this.observer.statsReceived();
        return null;
      case 'reporting':
        this.#report(chain);
        return 0;
      // A hinted page may be in use again before its hint is answered, so it is never discarded. The feature is
      // offered for its queue number alone, and no hinting is ever asked for.
      case 'hint':
      default:
        return 0;
    }
  }

  flush(queue: number, done: () => void): boolean {
    const role = this.#roles[queue];
    switch (role) {
      case 'inflate':
        return this.#inflate(done);
      case 'deflate':
        return this.#deflate(done);
      case 'reporting':
        return this.discarder.afterReports(done);
      case 'cache':
      case 'reclaim':
        return this.#cache.flush(role, done);
      default:
        return true;
    }
  }

  interrupt(idle: () => void): boolean {
    // They take turns: one of the two is idle.
    return this.#refiller.interrupt(idle) && this.discarder.interrupt(idle);
  }

  release(idle: () => void): boolean {
    if (this.#released || !this.#takesHugePages) return this.interrupt(idle);
    this.discarder.stop();
    const next = (): void => {
      if (this.interrupt(next) && this.#release(idle)) idle();
    };
    return this.interrupt(next) && this.#release(idle);
  }

  goOn(): void {
    this.#goOnBehind();
  }

  protected inhibitedChanged(): void {
    this.#cache.locked = this.inhibited !== null;
    if (this.inhibited === null && this.running && !this.#refiller.ending) this.discarder.start();
  }

  protected override goesFirst(): boolean {
    return this.#refiller.begin();
  }

  protected override startOver(): void {
    this.absentPages.startOver();
    this.#cacheConfig.forgetDriver();
  }

  #release(idle: () => void): boolean {
    const done = (): void => {
      this.#released = true;
      idle();
    };
    this.#released = this.#refiller.reserve(done);
    return this.#released;
  }

  #goOnBehind(): void {
    this.#released = false;
    this.#refiller.goOn();
    if (this.inhibited === null) this.discarder.start();
  }

  #forgetDeflates(): void {
    this.#deflating.clear();
    this.#refiller.forget();
  }

  get #takesHugePages(): boolean {
    return this.memory.regions.some(({ missing, ledger }) => missing !== null && ledger.ballooned.size > 0);
  }

  get #mustTell(): boolean {
    return hasFeature(this.acked, BalloonFeature.VIRTIO_BALLOON_F_MUST_TELL_HOST);
  }

  get #poisoned(): boolean {
    return hasFeature(this.acked, BalloonFeature.VIRTIO_BALLOON_F_PAGE_POISON) && this.config.poisonVal !== 0;
  }

  #inflate(done: () => void): boolean {
    const discards = this.inhibited === null;
    let owed = 0;
    const pages = this.#eachRun(this.#inflating, (region, first, count) => {
      if (this.#mustTell) inflatePages(region, first, count, this.#mustTell);
      else if (discards && !this.keeper.keeps(region, 'driver')) region.ledger.inflate(first, count);
      else return region.ledger.inflateKept(first, count);
      owed += count;
    });
    this.totals.count('inflated', pages * PAGE_BYTES);
    if (!discards || owed === 0) return true;
    if (!this.#mustTell) {
      this.discarder.afterSweep(() => {
        for (const { ledger } of this.memory.regions) ledger.forgive();
        done();
      });
      return false;
    }
    this.discarder.owe(owed);
    if (this.discarder.behindBytes <= MAX_BEHIND_BYTES) return true;
    this.discarder.afterSweep(done);
    return false;
  }

  /**
   * Pages leave the ledger when no discard of them is under way, and only then is the driver told: on hugetlbfs, when each
   * of them has memory.
   */
  #deflate(done: () => void): boolean {
    const { first, last } = this.#deflating.bounds();
    const taken = (): boolean => {
      this.#takeBack();
      return this.#refiller.afterAll(done);
    };
    if (!this.discarder.touches(first, last)) return taken();
    return this.discarder.interrupt(() => {
      if (taken()) done();
    });
  }

  #takeBack(): void {
    const pages = this.#eachRun(this.#deflating, (region, first, count) => {
      deflatePages(region, first, count, this.#mustTell);
      // Whatever the ledger says: it is the file that has a hole or not.
      region.missing?.add(first * PAGE_BYTES, count * PAGE_BYTES);
    });
    this.totals.count('deflated', pages * PAGE_BYTES);
    this.observer.tookBack();
  }

  #eachRun(runs: Runs, visit: (region: GuestRegion, first: number, count: number) => void): number {
    return drainRuns(this.memory, runs, (pages) => this.observer.pagesOutside(pages), visit);
  }

  /** Free page reporting: the pages stay the guest's, and it will not touch them before the buffer is back. */
  #report(chain: Chain): void {
    for (const { gpa, lenBytes, writable } of chain.segments) {
      if (!writable) throw new DriverError('a device-readable descriptor is in the reporting queue');
      this.totals.count('reported', lenBytes);
      // A poisoned page that was discarded would read as zero, and the driver relies on the poison.
      if (this.inhibited !== null || this.#poisoned) continue;
      for (const slice of this.memory.discardable(gpa, lenBytes)) {
        if (!('region' in slice)) this.observer.pagesOutside(slice.lenBytes / PAGE_BYTES);
        else if (!this.keeper.keeps(slice.region, 'reports'))
          this.discarder.report(slice.region, slice.offset, slice.lenBytes);
      }
    }
  }
}
