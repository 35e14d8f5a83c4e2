/**
 * The devices: balloon (this file) and cache-balloon. src/vm/kinds.ts makes one for a session, which calls, in this order:
 * setFeatures(), start(), then for each drain handle() a chain at a time (page-runs and block-runs collect pages) and flush()
 * (ledger, discards, acks), and stop(). config and cache-config are their config spaces, queue-roles says which queue is
 * which, guest-stats and cache-stats hold statistics, totals count. A device never sees a ring or a socket.
 */
import {
  BALLOON_PAGE_BYTES,
  BalloonFeature,
  PFN_BYTES,
  type BalloonQueue,
} from '../../protocol/virtio/balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { AbsentPages } from '../memory/absent-pages.js';
import { Discarder, type DiscardResult } from '../memory/discard.js';
import { DriverError } from '../memory/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { deflatePages, inflatePages } from '../memory/owed-pages.js';
import { Refiller } from '../memory/refill.js';
import { PAGE_BYTES, type GuestRegion } from '../memory/region.js';
import { readChain, type Chain } from '../virtqueue/chain.js';
import type { Device, DeviceHost } from '../virtqueue/device.js';
import { BalloonConfig } from './config.js';
import { DriverPast } from './driver-past.js';
import { DriverWords } from './driver-words.js';
import { GuestStats } from './guest-stats.js';
import { HugePageKeeper } from './huge-page-keeper.js';
import type { BalloonObserver } from './observer.js';
import { PageRuns } from './page-runs.js';
import { cutRun } from './page-slices.js';
import { queueCount, queueRole } from './queue-roles.js';
import { BalloonTotals } from './totals.js';

/** Longest buffer of page frame numbers or statistics: 8,192 pages; Linux sends 256, Windows and FreeBSD 1,024. */
const MAX_BUFFER_BYTES = 32 * 1024;

/** A discard behind the ack waits no longer than this for others to be merged with. */
const LONGEST_DELAY_MS = 50;

/** So much may be acked and not yet discarded; what comes then waits for a sweep. */
const MAX_BEHIND_BYTES = 256 * 2 ** 20;

/** Where buffers are copied before they are looked at. */
const scratch = new Uint8Array(MAX_BUFFER_BYTES);

/** What an operator may say of discards. */
export interface DiscardOptions {
  /** How long a discard behind the ack waits for others, in milliseconds. */
  readonly delayMs: number;
  /** Pages on hugetlbfs are discarded also where the guest uses them again without telling first. */
  readonly discardsUntold: boolean;
}

/** Of the words of the state file: those of the config space come first. */
const DRIVER_WORDS = 4;

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
 */
export class Balloon implements Device {
  readonly offeredFeatures: FeatureBits;
  readonly queueCount: number;
  readonly discardsUntold: boolean;
  readonly totals: BalloonTotals;
  readonly stats: GuestStats;
  readonly absentPages: AbsentPages;
  readonly #memory: GuestMemory;
  readonly #host: DeviceHost;
  readonly #observer: BalloonObserver;
  readonly #config: BalloonConfig;
  readonly #driver: DriverWords;
  readonly #past: DriverPast;
  readonly #inflating = new PageRuns();
  readonly #deflating = new PageRuns();
  readonly #discarder: Discarder;
  readonly #refiller: Refiller;
  readonly #keeper: HugePageKeeper;
  #acked: FeatureBits = 0n;
  #roles: (BalloonQueue | null)[] = [];
  #running = false;
  /** Whatever was taken of huge pages was made sure of, and the device is about to be stopped. */
  #released = false;
  #inhibited: string | null = null;

  constructor(
    memory: GuestMemory,
    host: DeviceHost,
    observer: BalloonObserver,
    offeredFeatures: FeatureBits,
    { delayMs, discardsUntold }: DiscardOptions,
  ) {
    this.#memory = memory;
    this.#host = host;
    this.#observer = observer;
    this.#config = new BalloonConfig(memory.state);
    this.#driver = new DriverWords(memory.state, DRIVER_WORDS);
    this.totals = new BalloonTotals(memory.state);
    if (this.#driver.isPaused) this.#forgetDriver();
    this.offeredFeatures = offeredFeatures;
    this.queueCount = queueCount(offeredFeatures);
    this.discardsUntold = discardsUntold;
    this.#keeper = new HugePageKeeper(discardsUntold, observer.hugePages);
    this.#discarder = new Discarder(
      memory,
      { quietMs: delayMs, longestMs: LONGEST_DELAY_MS },
      (result) => this.#count(result),
      () => this.#refiller.begin(),
    );
    const discarder = this.#discarder;
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
    this.absentPages = new AbsentPages(memory, this.#discarder, {
      running: () => this.#running && !this.#refiller.ending,
      tellsFirst,
      inhibited: () => this.#inhibited !== null,
      moved: () => this.totals.inflated + this.totals.deflated,
    });
    this.stats = new GuestStats((chain) => host.complete(this.#roles.indexOf('stats'), chain, 0));
    const [config, driver, stats] = [this.#config, this.#driver, this.stats];
    this.#past = new DriverPast({ kind: 'balloon', memory, config, driver, stats });
  }

  get targetBytes(): number {
    return this.#config.numPages * BALLOON_PAGE_BYTES;
  }

  get actualUnknown(): boolean {
    return this.#driver.unknown > 0;
  }

  get actualBytes(): number {
    return (this.actualUnknown ? this.#memory.balloonedPages : this.#config.actual) * BALLOON_PAGE_BYTES;
  }

  /** The size that the driver last wrote, also where it stopped since. */
  get heldBytes(): number {
    const stopped = this.#driver.isPaused && !this.actualUnknown;
    return stopped ? this.#driver.actual * BALLOON_PAGE_BYTES : this.actualBytes;
  }

  get inhibited(): string | null {
    return this.#inhibited;
  }

  /** How long the discard that is under way has been, in milliseconds; 0 when there is none. */
  get discardingMs(): number {
    return this.#discarder.busyMs;
  }

  /** Asks the driver to bring the balloon to `bytes`, rounded down to whole pages. */
  setTarget(bytes: number): void {
    const pages = Math.floor(bytes / BALLOON_PAGE_BYTES);
    if (pages === this.#config.numPages) return;
    this.#config.numPages = pages;
    this.#host.configChanged();
  }

  /** Tells the driver of its target again: one that gave up on it looks at it only then. */
  remind(): void {
    this.#driver.askAnew();
    this.#host.configChanged();
  }

  /**
   * With a reason: pages are taken but not discarded until it is null again, which makes up for them. Resolves when
   * no discard is under way any more.
   */
  setInhibited(reason: string | null): Promise<void> {
    this.#inhibited = reason;
    if (reason === null) {
      if (this.#running && !this.#refiller.ending) this.#discarder.start();
      return Promise.resolve();
    }
    this.#discarder.stop();
    return new Promise((resolve) => {
      if (this.#discarder.interrupt(resolve)) resolve();
    });
  }

  readConfig(offset: number, lenBytes: number): Uint8Array {
    return this.#config.read(offset, lenBytes, this.#running ? this.#driver.unknown : 0);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const before = this.#config.actual;
    const tells = this.#config.write(offset, bytes) && this.#running && this.actualUnknown;
    if (tells) {
      this.#driver.told();
      this.#host.configChanged();
    }
    if (tells || this.#config.actual !== before) this.#observer.actualChanged();
  }

  setFeatures(acked: FeatureBits): void {
    this.#acked = acked;
  }

  start(resumed: boolean): void {
    const beginning = this.#past.beginning(resumed);
    if (beginning === 'new' || beginning === 'unknown') {
      for (const region of this.#memory.regions) region.ledger.clear();
      this.stats.clear();
      this.absentPages.startOver();
    }
    const announces = this.#past.goOn(beginning, resumed, this.#mustTell);
    this.#driver.begin(beginning);
    if (announces) this.#host.configChanged();
    this.#running = true;
    if (this.#poisoned) this.#observer.poisonActive(this.#config.poisonVal);
    this.#keeper.restart();
    this.#goOnBehind();
  }

  stop(): void {
    this.#running = false;
    this.#driver.stop(this.#config.actual, this.#config.poisonVal);
    this.#forgetDriver();
    this.#roles = [];
    this.absentPages.forget();
    this.#discarder.stop();
  }

  saveState(): Uint8Array {
    return this.#past.save();
  }

  loadState(state: Uint8Array): void {
    this.#past.load(state);
  }

  #forgetDriver(): void {
    this.#config.actual = 0;
    this.#config.poisonVal = 0;
  }

  serves(queue: number, configured: readonly number[]): boolean {
    this.#roles[queue] ??= queueRole(queue, this.#acked, configured);
    return this.#roles[queue] !== null;
  }

  forget(queue: number): void {
    const role = this.#roles[queue];
    if (role === 'stats') this.stats.forget();
    else if (role === 'inflate') this.#inflating.clear();
    else if (role === 'deflate') this.#forgetDeflates();
    else if (role === 'reporting') this.#discarder.dropReports();
  }

  handle(queue: number, chain: Chain): number | null {
    switch (this.#roles[queue]) {
      case 'inflate':
        this.#inflating.add(this.#readPfns(chain));
        return 0;
      case 'deflate':
        this.#deflating.add(this.#readPfns(chain));
        return 0;
      case 'stats':
        this.stats.receive(chain, readChain(this.#memory, chain, scratch));
        this.#observer.statsReceived();
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
    switch (this.#roles[queue]) {
      case 'inflate':
        return this.#inflate(done);
      case 'deflate':
        return this.#deflate(done);
      case 'reporting':
        return this.#discarder.afterReports(done);
      default:
        return true;
    }
  }

  interrupt(idle: () => void): boolean {
    // They take turns: one of the two is idle.
    return this.#refiller.interrupt(idle) && this.#discarder.interrupt(idle);
  }

  release(idle: () => void): boolean {
    if (this.#released || !this.#takesHugePages) return this.interrupt(idle);
    this.#discarder.stop();
    const next = (): void => {
      if (this.interrupt(next) && this.#release(idle)) idle();
    };
    return this.interrupt(next) && this.#release(idle);
  }

  goOn(): void {
    this.#goOnBehind();
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
    if (this.#inhibited === null) this.#discarder.start();
  }

  #forgetDeflates(): void {
    this.#deflating.clear();
    this.#refiller.forget();
  }

  get #takesHugePages(): boolean {
    return this.#memory.regions.some(({ missing, ledger }) => missing !== null && ledger.ballooned.size > 0);
  }

  get #mustTell(): boolean {
    return hasFeature(this.#acked, BalloonFeature.VIRTIO_BALLOON_F_MUST_TELL_HOST);
  }

  get #poisoned(): boolean {
    return (
      hasFeature(this.#acked, BalloonFeature.VIRTIO_BALLOON_F_PAGE_POISON) && this.#config.poisonVal !== 0
    );
  }

  #readPfns(chain: Chain): Uint8Array {
    const bytes = readChain(this.#memory, chain, scratch);
    if (bytes.length % PFN_BYTES !== 0) {
      throw new DriverError(`page frame numbers in ${bytes.length} bytes, not a multiple of ${PFN_BYTES}`);
    }
    return bytes;
  }

  #inflate(done: () => void): boolean {
    const discards = this.#inhibited === null;
    let owed = 0;
    const pages = this.#eachRun(this.#inflating, (region, first, count) => {
      if (this.#mustTell) inflatePages(region, first, count, this.#mustTell);
      else if (discards && !this.#keeper.keeps(region, 'driver')) region.ledger.inflate(first, count);
      else return region.ledger.inflateKept(first, count);
      owed += count;
    });
    this.totals.count('inflated', pages * PAGE_BYTES);
    if (!discards || owed === 0) return true;
    if (!this.#mustTell) {
      this.#discarder.afterSweep(() => {
        for (const { ledger } of this.#memory.regions) ledger.forgive();
        done();
      });
      return false;
    }
    this.#discarder.owe(owed);
    if (this.#discarder.behindBytes <= MAX_BEHIND_BYTES) return true;
    this.#discarder.afterSweep(done);
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
    if (!this.#discarder.touches(first, last)) return taken();
    return this.#discarder.interrupt(() => {
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
    this.#observer.tookBack();
  }

  /** Cuts the runs collected at the borders of regions. Returns how many pages they have, also those in none. */
  #eachRun(runs: PageRuns, visit: (region: GuestRegion, first: number, count: number) => void): number {
    let outside = 0;
    let all = 0;
    runs.drain((firstPfn, pages) => {
      all += pages;
      outside += cutRun(this.#memory, firstPfn, pages, visit);
    });
    if (outside > 0) this.#observer.pagesOutside(outside);
    return all;
  }

  /** Free page reporting: the pages stay the guest's, and it will not touch them before the buffer is back. */
  #report(chain: Chain): void {
    for (const { gpa, lenBytes, writable } of chain.segments) {
      if (!writable) throw new DriverError('a device-readable descriptor is in the reporting queue');
      this.totals.count('reported', lenBytes);
      // A poisoned page that was discarded would read as zero, and the driver relies on the poison.
      if (this.#inhibited !== null || this.#poisoned) continue;
      for (const slice of this.#memory.discardable(gpa, lenBytes)) {
        if (!('region' in slice)) this.#observer.pagesOutside(slice.lenBytes / PAGE_BYTES);
        else if (!this.#keeper.keeps(slice.region, 'reports'))
          this.#discarder.report(slice.region, slice.offset, slice.lenBytes);
      }
    }
  }

  #count(result: DiscardResult): void {
    this.totals.countDiscard(result.discardedBytes, result.seconds);
    this.#observer.discardsTried(result.error, result.failedRanges, result.seconds);
  }
}
