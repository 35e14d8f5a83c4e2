import {
  BALLOON_PAGE_BYTES,
  BalloonFeature,
  PFN_BYTES,
  type BalloonQueue,
} from '../../protocol/virtio/balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { deflatePages, Discarder, type DiscardResult } from '../memory/discard.js';
import { DriverError } from '../memory/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { PAGE_BYTES, type GuestRegion } from '../memory/region.js';
import type { SystemError } from '../os/errors.js';
import { readChain, type Chain } from '../virtqueue/chain.js';
import type { Device, DeviceHost } from '../virtqueue/device.js';
import { BalloonConfig } from './config.js';
import { GuestStats } from './guest-stats.js';
import { PageRuns } from './page-runs.js';
import { queueCount, queueRole } from './queue-roles.js';

/** Longest buffer of page frame numbers or statistics: 65,536 pages, far beyond any driver's. */
const MAX_BUFFER_BYTES = 256 * 1024;

/** Bytes discarded at once when an inhibition ends, before other VMs get their turn. */
const OWED_BYTES_PER_TURN = 64 * 2 ** 20;

/** What a balloon tells its owner. None of these may throw. */
export interface BalloonObserver {
  /** The driver reported how much is in the balloon. */
  actualChanged(): void;
  statsReceived(): void;
  /** The guest named pages that are in none of its regions; they were skipped. */
  pagesOutside(count: number): void;
  discardFailed(error: SystemError, ranges: number): void;
  poisonActive(poisonVal: number): void;
}

/** Totals since the VM connected, in bytes. */
export interface BalloonTotals {
  discarded: number;
  inflated: number;
  deflated: number;
  reported: number;
}

/** What a driver leaves behind when its device stops, in case it is only paused. */
interface Paused {
  actual: number;
  poisonVal: number;
}

/**
 * The traditional memory balloon (virtio 1.3, 5.5). The host moves a target; the driver answers with pages it
 * gives up (inflate) or wants back (deflate). A page given up is discarded before its buffer is given back, and
 * a page outside the balloon is never discarded, except where the driver reports it free.
 *
 * Stopped devices may be paused or reset, and only the next start tells which: until then `actual` reads as 0,
 * nothing is discarded, and the ledger is kept.
 */
export class Balloon implements Device {
  readonly offeredFeatures: FeatureBits;
  readonly queueCount: number;
  readonly totals: BalloonTotals = { discarded: 0, inflated: 0, deflated: 0, reported: 0 };
  readonly stats: GuestStats;
  readonly #memory: GuestMemory;
  readonly #host: DeviceHost;
  readonly #observer: BalloonObserver;
  readonly #config = new BalloonConfig();
  readonly #runs = new PageRuns();
  readonly #discarder = new Discarder();
  readonly #scratch = new Uint8Array(MAX_BUFFER_BYTES);
  #acked: FeatureBits = 0n;
  #roles: (BalloonQueue | null)[] = [];
  #running = false;
  #paused: Paused | null = null;
  #inhibited: string | null = null;
  #owed: NodeJS.Immediate | null = null;

  constructor(
    memory: GuestMemory,
    host: DeviceHost,
    observer: BalloonObserver,
    offeredFeatures: FeatureBits,
  ) {
    this.#memory = memory;
    this.#host = host;
    this.#observer = observer;
    this.offeredFeatures = offeredFeatures;
    this.queueCount = queueCount(offeredFeatures);
    this.stats = new GuestStats((chain) => host.complete(this.#roles.indexOf('stats'), chain, 0));
  }

  get targetBytes(): number {
    return this.#config.numPages * BALLOON_PAGE_BYTES;
  }

  get actualBytes(): number {
    return this.#config.actual * BALLOON_PAGE_BYTES;
  }

  get inhibited(): string | null {
    return this.#inhibited;
  }

  /** Asks the driver to bring the balloon to `bytes`, rounded down to whole pages. */
  setTarget(bytes: number): void {
    const pages = Math.floor(bytes / BALLOON_PAGE_BYTES);
    if (pages === this.#config.numPages) return;
    this.#config.numPages = pages;
    this.#host.configChanged();
  }

  /** With a reason: pages are taken but not discarded until it is null again, which makes up for them. */
  setInhibited(reason: string | null): void {
    this.#inhibited = reason;
    this.#discardOwed();
  }

  readConfig(offset: number, lenBytes: number): Uint8Array {
    return this.#config.read(offset, lenBytes);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const before = this.#config.actual;
    this.#config.write(offset, bytes);
    if (this.#config.actual !== before) this.#observer.actualChanged();
  }

  setFeatures(acked: FeatureBits): void {
    this.#acked = acked;
  }

  start(resumed: boolean): void {
    if (resumed && this.#paused !== null) {
      this.#config.actual = this.#paused.actual;
      this.#config.poisonVal = this.#paused.poisonVal;
    } else {
      for (const region of this.#memory.regions) region.ledger.clear();
      this.stats.clear();
    }
    this.#paused = null;
    this.#running = true;
    if (this.#poisoned) this.#observer.poisonActive(this.#config.poisonVal);
    this.#discardOwed();
  }

  stop(): void {
    this.#running = false;
    this.#paused = { actual: this.#config.actual, poisonVal: this.#config.poisonVal };
    this.#config.actual = 0;
    this.#config.poisonVal = 0;
    this.#roles = [];
    if (this.#owed !== null) clearImmediate(this.#owed);
    this.#owed = null;
  }

  serves(queue: number, configured: readonly number[]): boolean {
    this.#roles[queue] ??= queueRole(queue, this.#acked, configured);
    return this.#roles[queue] !== null;
  }

  forget(queue: number): void {
    if (this.#roles[queue] === 'stats') this.stats.forget();
  }

  handle(queue: number, chain: Chain): number | null {
    switch (this.#roles[queue]) {
      case 'inflate':
        this.#runs.add(this.#readPfns(chain));
        return 0;
      case 'deflate':
        this.#deflate(chain);
        return 0;
      case 'stats':
        this.stats.receive(chain, readChain(this.#memory, chain, this.#scratch));
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

  flush(): void {
    this.#inflate();
    this.#settle(this.#discarder.flush());
  }

  get #poisoned(): boolean {
    return (
      hasFeature(this.#acked, BalloonFeature.VIRTIO_BALLOON_F_PAGE_POISON) && this.#config.poisonVal !== 0
    );
  }

  #readPfns(chain: Chain): Uint8Array {
    const bytes = readChain(this.#memory, chain, this.#scratch);
    if (bytes.length % PFN_BYTES !== 0) {
      throw new DriverError(`page frame numbers in ${bytes.length} bytes, not a multiple of ${PFN_BYTES}`);
    }
    return bytes;
  }

  #inflate(): void {
    this.#eachRun((region, first, count) => {
      region.ledger.inflate(first, count);
      this.totals.inflated += count * PAGE_BYTES;
      if (this.#inhibited === null) this.#discarder.add(region, first, count);
    });
  }

  #deflate(chain: Chain): void {
    this.#runs.add(this.#readPfns(chain));
    this.#eachRun((region, first, count) => {
      deflatePages(region, first, count);
      this.totals.deflated += count * PAGE_BYTES;
    });
  }

  /** Cuts the runs collected at the borders of regions. */
  #eachRun(visit: (region: GuestRegion, first: number, count: number) => void): void {
    let outside = 0;
    this.#runs.drain((firstPfn, pages) => {
      for (const slice of this.#memory.slices(firstPfn * PAGE_BYTES, pages * PAGE_BYTES)) {
        const count = slice.lenBytes / PAGE_BYTES;
        if ('region' in slice) visit(slice.region, slice.offset / PAGE_BYTES, count);
        else outside += count;
      }
    });
    if (outside > 0) this.#observer.pagesOutside(outside);
  }

  /** Free page reporting: the pages stay the guest's, and it will not touch them before the buffer is back. */
  #report(chain: Chain): void {
    for (const { gpa, lenBytes, writable } of chain.segments) {
      if (!writable) throw new DriverError('device-readable descriptor in the reporting queue');
      this.totals.reported += lenBytes;
      // A poisoned page that was discarded would read as zero, and the driver relies on the poison.
      if (this.#inhibited !== null || this.#poisoned) continue;
      for (const slice of this.#memory.slices(gpa, lenBytes)) {
        if ('region' in slice) this.#discarder.addReported(slice.region, slice.offset, slice.lenBytes);
        else this.#observer.pagesOutside(slice.lenBytes / PAGE_BYTES);
      }
    }
  }

  /** Discards what is owed, a bounded part at a time. */
  #discardOwed(): void {
    if (!this.#running || this.#inhibited !== null || this.#owed !== null) return;
    let budget = OWED_BYTES_PER_TURN;
    for (const region of this.#memory.regions) {
      if (region.ledger.pending.size === 0) continue;
      for (const { first, count } of region.ledger.pending.runs()) {
        budget -= this.#discarder.add(region, first, count);
        if (budget <= 0) break;
      }
    }
    const result = this.#discarder.flush();
    this.#settle(result);
    // What fails, or waits for the rest of its backing page, stays owed: only progress is worth another turn.
    if (result.discardedBytes === 0) return;
    this.#owed = setImmediate(() => {
      this.#owed = null;
      this.#discardOwed();
    });
  }

  #settle(result: DiscardResult): void {
    this.totals.discarded += result.discardedBytes;
    if (result.error !== null) this.#observer.discardFailed(result.error, result.failedRanges);
  }
}
