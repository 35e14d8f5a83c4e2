import { BALLOON_PAGE_BYTES } from '../../protocol/virtio/balloon.js';
import {
  CACHE_BALLOON_QUEUES,
  CACHE_CONFIG_PAGES_FREE,
  CACHE_CONFIG_PAGES_TOTAL,
  CacheBalloonFeature,
  RECLAIMQ,
} from '../../protocol/virtio/cache-balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import type { Chain } from '../virtqueue/chain.js';
import type { Device } from '../virtqueue/device.js';
import { BalloonBase, type BalloonParts } from './base.js';
import { CacheConfig } from './cache-config.js';
import { CachePart } from './cache-part.js';
import { CacheStats } from './cache-stats.js';
import { DriverPast } from './driver-past.js';

/** Of the words of the state file: those of the config space come first. */
const DRIVER_WORDS = 7;

function roleOf(queue: number): 'cache' | 'reclaim' {
  return queue === RECLAIMQ ? 'reclaim' : 'cache';
}

/**
 * The page cache balloon as a device of its own, as it was proposed in 2012 (virtio id 13). The target is an upper limit: the
 * guest decides how much of it is in the balloon.
 */
export class CacheBalloon extends BalloonBase<CacheConfig> implements Device {
  readonly queueCount = CACHE_BALLOON_QUEUES;
  readonly leastQueues = CACHE_BALLOON_QUEUES;
  readonly stats: CacheStats;
  /** Its guest takes pages back by itself, so that none has to be absent. */
  readonly absentPages = null;
  /** Each of its queues has one purpose. */
  readonly unknownQueues = [];
  readonly cache = null;
  protected readonly past: DriverPast;
  readonly #part: CachePart;

  constructor(parts: BalloonParts) {
    const { memory, host, observer } = parts;
    const config = new CacheConfig(memory.state);
    super(parts, { config, word: DRIVER_WORDS, delay: { quietMs: 0, longestMs: 0 } });
    const { driver, discarder, keeper, totals } = this;
    this.past = new DriverPast({ kind: 'cache-balloon', memory, config, driver, stats: null });
    if (driver.isPaused) config.forgetDriver();
    this.#part = new CachePart({
      ...{ memory, host, observer, discarder, keeper, config, totals },
      discards: () => this.inhibited === null,
      countsPages: true,
    });
    this.stats = new CacheStats(() => {
      config.askForStats();
      host.configChanged();
    });
  }

  get actualBytes(): number {
    return this.running && this.#tells ? this.#countedBytes : this.#part.actualBytes;
  }

  /** The same, also where its driver stopped since. */
  get heldBytes(): number {
    if (this.running) return this.actualBytes;
    return this.#tells ? this.#countedBytes : this.driver.actual * BALLOON_PAGE_BYTES;
  }

  remind(): void {
    this.host.configChanged();
  }

  readConfig(offset: number, lenBytes: number): Uint8Array {
    return this.config.read(offset, lenBytes);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const before = this.config.actual;
    const answered = this.config.write(offset, bytes);
    if (this.config.actual !== before) {
      // Where the ledger counts, and began later than the driver, the two have to agree first.
      if (this.running && this.#part.actualBytes === this.actualBytes) this.driver.told();
      this.observer.actualChanged();
    }
    if (!answered) return;
    this.stats.receive(
      this.config.get(CACHE_CONFIG_PAGES_TOTAL) * BALLOON_PAGE_BYTES,
      this.config.get(CACHE_CONFIG_PAGES_FREE) * BALLOON_PAGE_BYTES,
    );
    this.observer.statsReceived();
  }

  override setFeatures(acked: FeatureBits): void {
    super.setFeatures(acked);
    this.#part.setFeatures(acked);
  }

  start(resumed: boolean): void {
    this.begin(resumed, false);
    if (this.inhibited === null) this.discarder.start();
  }

  stop(): void {
    this.running = false;
    this.driver.stop(this.config.actual, 0);
    this.config.forgetDriver();
    this.discarder.stop();
  }

  serves(): boolean {
    return true;
  }

  forget(queue: number): void {
    this.#part.forget(roleOf(queue));
  }

  handle(queue: number, chain: Chain): number {
    return this.#part.handle(roleOf(queue), chain);
  }

  flush(queue: number, done: () => void): boolean {
    return this.#part.flush(roleOf(queue), done);
  }

  interrupt(idle: () => void): boolean {
    return this.discarder.interrupt(idle);
  }

  release(idle: () => void): boolean {
    return this.interrupt(idle);
  }

  goOn(): void {
    // Nothing was stopped for it.
  }

  protected inhibitedChanged(): void {
    this.#part.locked = this.inhibited !== null;
    if (this.inhibited === null && this.running) this.discarder.start();
  }

  get #tells(): boolean {
    return hasFeature(this.acked, CacheBalloonFeature.VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM);
  }

  get #countedBytes(): number {
    return this.memory.balloonedPages * BALLOON_PAGE_BYTES;
  }
}
