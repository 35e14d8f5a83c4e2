// A guest in miniature whose balloon follows the law of src/policy/working-set.ts: it has anonymous memory, page cache that is read
// over and over, and page cache that is read once; it reclaims the latter first, as the kernel does. Where it is stubborn, pages
// that were read over and over until now are reclaimed last, after those that are read so now and were not reclaimed yet. Its driver
// reports most of the memory that is free where much of it has been so for two seconds.
import {
  step,
  UNSIZED,
  type Sized,
  type SizeLimits,
  type SizeReading,
  type SizeState,
} from '../../src/policy/working-set.js';
import { MIB } from './world.js';

export interface SizedGuestOptions {
  readonly ramMib?: number;
  readonly anonymousMib?: number;
  /** Read over and over, at that speed where it is in the page cache. */
  readonly rereadMib?: number;
  readonly loopMibPerSecond?: number;
  readonly streamMibPerSecond?: number;
  readonly minMib?: number;
  readonly maxMib?: number;
  readonly roomMib?: number;
  /** The kernel reclaims when less than the first is free, until the second is. */
  readonly watermarksMib?: readonly [low: number, high: number];
  /** Nothing but the kernel itself gets the last of free memory. */
  readonly leastFreeMib?: number;
  readonly stubborn?: boolean;
  readonly givesOnOom?: boolean;
  /** The part that its driver reports of the memory that is free; 0: it reports none. */
  readonly reported?: number;
  /** The tags that it sends; the others are NaN. */
  readonly tells?: (reading: SizeReading) => Partial<SizeReading>;
}

const KERNEL_MIB = 88;
const BALLOON_MIB_PER_SECOND = 400;
const GROWTH_MIB_PER_SECOND = 300;
const TICK = 0.125;
const REPORT_MIB = 64;
const REPORT_SECONDS = 2;
const REPORTED_SHARE = 0.85;

/** All sizes are MiB. */
export class SizedGuest {
  wants: number;
  reread: number;
  stream: number;
  anonymous = 0;
  hot = 0;
  /** Of `hot`, pages that were read again after they were reclaimed. */
  proven = 0;
  cold = 0;
  /** Pages of what was read over and over before. */
  stale = 0;
  /** Free, and memory of the host: the last to be taken. */
  used = 0;
  actual = 0;
  target = 0;
  reclaimed = 0;
  read = 0;
  stalls = 0;
  oomKills = 0;
  now = 100;
  /** Sends no statistics, as a guest that is paused. */
  silent = false;
  state: SizeState = UNSIZED;
  /** Every look. */
  readonly looks: (Sized & { readonly now: number })[] = [];
  readonly #options: SizedGuestOptions;
  readonly #ram: number;
  #stats: SizeReading | null = null;
  #lookAt = 0;
  readonly #low: number;
  readonly #high: number;

  constructor(options: SizedGuestOptions = {}) {
    this.#options = options;
    this.#ram = options.ramMib ?? 1024;
    [this.#low, this.#high] = options.watermarksMib ?? [6, 10];
    this.wants = options.anonymousMib ?? 0;
    this.reread = options.rereadMib ?? 0;
    this.stream = options.streamMibPerSecond ?? 0;
  }

  get size(): number {
    return this.#ram - this.actual;
  }

  get free(): number {
    return this.#ram - this.actual - KERNEL_MIB - this.anonymous - this.hot - this.cold - this.stale;
  }

  /** Memory of the host. */
  get held(): number {
    return this.size - this.free + this.used;
  }

  get limits(): SizeLimits {
    const { minMib = 0, maxMib = this.#ram, roomMib = Infinity } = this.#options;
    return {
      leastTargetBytes: (this.#ram - maxMib) * MIB,
      mostTargetBytes: (this.#ram - minMib) * MIB,
      roomBytes: roomMib * MIB,
    };
  }

  run(seconds: number): this {
    const end = this.now + seconds;
    while (this.now < end) {
      this.now += TICK;
      if (!this.silent) this.#live();
      const tookItself = this.state.reached && this.actual * MIB < this.state.targetBytes;
      if (this.now >= this.#lookAt || tookItself) this.look();
    }
    return this;
  }

  /** The governor's part. */
  look(): Sized {
    if (!this.silent) this.#stats = this.#reading();
    const told = this.#stats ?? { ...this.#reading(), statsSeconds: NaN };
    const reading = { ...told, targetBytes: this.target * MIB, actualBytes: this.actual * MIB };
    const sized = step(this.state, reading, this.limits, this.now);
    this.state = sized.state;
    this.target = sized.targetBytes / MIB;
    this.#lookAt = this.now + sized.againSeconds;
    this.looks.push({ ...sized, now: this.now });
    return sized;
  }

  count(kind: Sized['why']['kind']): number {
    return this.looks.filter(({ why }) => why.kind === kind).length;
  }

  #reading(): SizeReading {
    const caches = this.hot + this.cold + this.stale;
    const full: SizeReading = {
      ramBytes: this.#ram * MIB,
      targetBytes: this.target * MIB,
      actualBytes: this.actual * MIB,
      givesOnOom: this.#options.givesOnOom ?? true,
      statsSeconds: this.now,
      freeBytes: this.free * MIB,
      availableBytes: Math.max(0, this.free - this.#high + caches - Math.min(caches / 2, this.#low)) * MIB,
      cacheBytes: caches * MIB,
      reclaimedBytes: this.reclaimed * MIB,
      majorFaults: NaN,
      stalls: this.stalls,
      swappedInBytes: 0,
      swappedOutBytes: 0,
      readBytes: this.read * MIB,
      allocatedBytes: this.held * MIB,
    };
    return { ...full, readBytes: NaN, ...this.#options.tells?.(full) };
  }

  #live(): void {
    const moved = BALLOON_MIB_PER_SECOND * TICK;
    if (this.target > this.actual) this.actual += this.#take(Math.min(moved, this.target - this.actual));
    else this.actual -= Math.min(moved, this.actual - this.target);
    const grown = Math.min(GROWTH_MIB_PER_SECOND * TICK, this.wants - this.anonymous);
    if (grown < 0) {
      this.used -= grown;
      this.anonymous = this.wants;
    } else this.anonymous += this.#take(grown) + this.#deflateOnOom(grown);
    const streamed = this.#take(this.stream * TICK);
    this.cold += streamed;
    const left = Math.max(0, this.hot - this.reread);
    if (this.#options.stubborn === true) this.stale += left;
    else this.cold += left;
    this.hot -= left;
    this.proven = Math.min(this.proven, this.hot);
    const missing = this.reread - this.hot;
    const loop = (this.#options.loopMibPerSecond ?? 400) * TICK;
    const misses = this.reread === 0 ? 0 : Math.min(missing, loop * (missing / this.reread));
    const again = this.#take(misses);
    this.hot += again;
    this.proven += again;
    this.read += streamed + again;
    this.#report();
  }

  #failed = 0;
  #roomySeconds = 0;

  #report(): void {
    this.used = Math.max(0, Math.min(this.used, this.free));
    this.#roomySeconds = this.free > this.#low + REPORT_MIB ? this.#roomySeconds + TICK : 0;
    if (this.#roomySeconds >= REPORT_SECONDS) this.used *= 1 - (this.#options.reported ?? REPORTED_SHARE);
  }

  /** Allocates: kswapd reclaims up to the high watermark where less than the low one is free. Returns the part that it got. */
  #take(mib: number): number {
    const lacks = mib - (this.free - this.#low);
    if (lacks > 0) {
      const cold = Math.min(this.cold, lacks + this.#high - this.#low);
      this.cold -= cold;
      const first = Math.min(this.hot - this.proven, Math.max(0, lacks - cold));
      const stale = Math.min(this.stale, Math.max(0, lacks - cold - first));
      const last = Math.min(this.proven, Math.max(0, lacks - cold - first - stale));
      this.hot -= first + last;
      this.proven -= last;
      this.stale -= stale;
      this.reclaimed += cold + first + stale + last;
      this.used += cold + first + stale + last;
    }
    const got = Math.max(0, Math.min(mib, this.free - (this.#options.leastFreeMib ?? 1)));
    if (got < mib) this.stalls++;
    this.#failed = mib - got;
    return got;
  }

  /** The driver gives pages out of the balloon before the OOM killer ends a program. */
  #deflateOnOom(mib: number): number {
    if (this.#failed <= 0) return 0;
    const taken = Math.min(this.#failed, this.actual);
    this.actual -= taken;
    if (taken < Math.min(mib, this.#failed)) this.oomKills++;
    return taken;
  }
}
