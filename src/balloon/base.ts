import { BALLOON_PAGE_BYTES } from '../../protocol/virtio/balloon.js';
import type { FeatureBits } from '../../protocol/virtio/features.js';
import { Discarder, type Delay, type DiscardResult } from '../memory/discard.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { DeviceHost } from '../virtqueue/device.js';
import type { AwaitedStats } from './awaited-stats.js';
import type { DriverPast } from './driver-past.js';
import { DriverWords } from './driver-words.js';
import { HugePageKeeper } from './huge-page-keeper.js';
import type { BalloonObserver } from './observer.js';
import { BalloonTotals } from './totals.js';

/** What an operator may say of discards. */
interface DiscardOptions {
  /** How long a discard behind the ack waits for others, in milliseconds. */
  readonly delayMs: number;
  /** Pages on hugetlbfs are discarded also where the guest uses them again without telling first. */
  readonly discardsUntold: boolean;
}

/** With what a balloon of any kind is made. */
export interface BalloonParts {
  readonly memory: GuestMemory;
  readonly host: DeviceHost;
  readonly observer: BalloonObserver;
  readonly offered: FeatureBits;
  readonly discards: DiscardOptions;
}

/** Sizes that a balloon has a field of its config space for, in pages. */
interface SizeFields {
  numPages: number;
  actual: number;
}

/** What balloons of all kinds have: a target, a driver, and discards that can be stopped. */
export abstract class BalloonBase<Config extends SizeFields> {
  readonly offeredFeatures: FeatureBits;
  readonly discardsUntold: boolean;
  readonly totals: BalloonTotals;
  abstract readonly stats: AwaitedStats;
  protected readonly memory: GuestMemory;
  protected readonly host: DeviceHost;
  protected readonly observer: BalloonObserver;
  protected readonly config: Config;
  protected readonly driver: DriverWords;
  protected readonly discarder: Discarder;
  protected readonly keeper: HugePageKeeper;
  protected abstract readonly past: DriverPast;
  protected acked: FeatureBits = 0n;
  protected running = false;
  #inhibited: string | null = null;

  /** `word`: the first of the words of the state file for the driver. */
  constructor(
    { memory, host, observer, offered, discards }: BalloonParts,
    { config, word, delay }: { config: Config; word: number; delay: Delay },
  ) {
    this.memory = memory;
    this.host = host;
    this.observer = observer;
    this.config = config;
    this.driver = new DriverWords(memory.state, word);
    this.totals = new BalloonTotals(memory.state);
    this.offeredFeatures = offered;
    this.discardsUntold = discards.discardsUntold;
    this.keeper = new HugePageKeeper(discards.discardsUntold, observer.hugePages);
    this.discarder = new Discarder(
      memory,
      delay,
      (result) => this.#count(result),
      () => this.goesFirst(),
    );
  }

  get targetBytes(): number {
    return this.config.numPages * BALLOON_PAGE_BYTES;
  }

  /** The driver has yet to say how much it holds. */
  get actualUnknown(): boolean {
    return this.driver.unknown > 0;
  }

  get inhibited(): string | null {
    return this.#inhibited;
  }

  /** How long the discard that is under way has been, in milliseconds; 0 when there is none. */
  get discardingMs(): number {
    return this.discarder.busyMs;
  }

  /** Asks the driver to bring the balloon to `bytes`, or lets it hold so much; rounded down to whole pages. */
  setTarget(bytes: number): void {
    const pages = Math.floor(bytes / BALLOON_PAGE_BYTES);
    if (pages === this.config.numPages) return;
    this.config.numPages = pages;
    this.host.configChanged();
  }

  /**
   * With a reason: pages are taken but not discarded until it is null again. Resolves when no discard is under way any
   * more.
   */
  setInhibited(reason: string | null): Promise<void> {
    this.#inhibited = reason;
    this.inhibitedChanged();
    if (reason === null) return Promise.resolve();
    this.discarder.stop();
    return new Promise((resolve) => {
      if (this.discarder.interrupt(resolve)) resolve();
    });
  }

  setFeatures(acked: FeatureBits): void {
    this.acked = acked;
  }

  saveState(): Uint8Array {
    return this.past.save();
  }

  loadState(state: Uint8Array): void {
    this.past.load(state);
  }

  protected abstract inhibitedChanged(): void;

  /** Asked before each discard: true when other work goes first. */
  protected goesFirst(): boolean {
    return false;
  }

  /** Rings begin to be served: what is known of the driver holds again, or it is a new one, which is then returned. */
  protected begin(resumed: boolean, tellsFirst: boolean): boolean {
    const beginning = this.past.beginning(resumed);
    const isNew = beginning === 'new' || beginning === 'unknown';
    if (isNew) {
      for (const region of this.memory.regions) region.ledger.clear();
      this.stats.clear();
      this.startOver();
    }
    const announces = this.past.goOn(beginning, resumed, tellsFirst);
    this.driver.begin(beginning);
    if (announces) this.host.configChanged();
    this.running = true;
    this.keeper.restart();
    return isNew;
  }

  /** The driver is another one, with an empty balloon. */
  protected startOver(): void {
    // Nothing more is known of it.
  }

  #count(result: DiscardResult): void {
    this.totals.count('discarded', result.discardedBytes);
    this.totals.count('seconds', result.seconds);
    this.observer.discardsTried(result.error, result.failedRanges, result.seconds);
  }
}
