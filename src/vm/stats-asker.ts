import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { BalloonFeature, STAT_NAMES } from '../../protocol/virtio/balloon.js';
import type { GuestStats } from '../balloon/guest-stats.js';
import { monotonicNow, msSince, msUntilNext, toBoot, toWall, type Monotonic } from '../os/clock.js';
import { momentOf, type VmRecord } from './record.js';

/** VMs that are asked for statistics within that time are asked together: to be woken costs more than to ask. */
const BEGIN_MS = 1000;

/** The part of a device that asks its guest for statistics, every so many seconds. */
interface AskedStats extends Pick<GuestStats, 'values' | 'receivedAt'> {
  request(): void;
  resume(values: ReadonlyMap<string, number>, receivedAt: Monotonic): void;
}

/** Asks a guest for statistics now and then, and knows how long they have been missing. */
export class StatsAsker {
  readonly #stats: AskedStats;
  #intervalSeconds: number;
  #timer: NodeJS.Timeout | null = null;
  #startedAt = monotonicNow();

  /** `intervalSeconds` 0: the guest is not asked. */
  constructor(stats: AskedStats, intervalSeconds: number) {
    this.#stats = stats;
    this.#intervalSeconds = intervalSeconds;
    this.#ask();
  }

  get intervalSeconds(): number {
    return this.#intervalSeconds;
  }

  /** 0: the guest is not asked any more. */
  set intervalSeconds(seconds: number) {
    this.#intervalSeconds = seconds;
    // None are missing yet.
    this.#startedAt = monotonicNow();
    this.#ask();
  }

  /** A driver started, which owes none yet. */
  restart(): void {
    this.#startedAt = monotonicNow();
  }

  /** Goes on with the statistics that the daemon before this one wrote down. */
  restore(found: VmRecord['stats']): void {
    if (found === null) return;
    const { values, receivedAt, receivedBootMs } = found;
    this.#stats.resume(new Map(Object.entries(values)), momentOf(receivedBootMs, receivedAt));
  }

  /** Those that have names: a guest may send any number of others. */
  record(): VmRecord['stats'] {
    const { values, receivedAt } = this.#stats;
    if (values === null || receivedAt === null) return null;
    const named = [...values].filter(([name]) => (STAT_NAMES as readonly string[]).includes(name));
    return {
      receivedAt: toWall(receivedAt),
      receivedBootMs: toBoot(receivedAt),
      values: Object.fromEntries(named),
    };
  }

  /** Milliseconds since statistics came, or since the driver that owes them started; null: none are asked for. */
  ageMs(features: FeatureBits): number | null {
    if (this.#intervalSeconds === 0 || !hasFeature(features, BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ)) {
      return null;
    }
    const { receivedAt } = this.#stats;
    const startedMs = msSince(this.#startedAt);
    return receivedAt === null ? startedMs : Math.min(startedMs, msSince(receivedAt));
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  /** Begins when others do, so that the daemon is woken once for many of them. */
  #ask(): void {
    this.close();
    this.#timer = null;
    const periodMs = this.#intervalSeconds * 1000;
    if (periodMs === 0) return;
    const ask = (): void => this.#stats.request();
    const first = (): void => {
      ask();
      this.#timer = setInterval(ask, periodMs).unref();
    };
    this.#timer = setTimeout(first, periodMs + msUntilNext(BEGIN_MS)).unref();
  }
}
