// A guest's balloon driver as Linux has it: it waits for every ack before it goes on, writes `actual` after every
// buffer, and walks toward the target in steps of one buffer. It reads the target once it runs and after each walk, so that all which
// was told before has been heard then, also where the VMM asks for no acks.
import { PATIENCE_MS, Signal } from './deadline.js';
import type { Frontend } from './frontend.js';
import { PAGE_BYTES } from './guest-ram.js';
import {
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_RING_PACKED,
  F_VERSION_1,
  alignUp,
  type ChainBuffer,
  type GuestRing,
} from './guest-ring.js';
import { PackedRingDriver } from './packed-ring-driver.js';
import { RingDriver } from './ring-driver.js';
import { CACHE_F, ranges, type Block } from './cache-driver.js';
import { bits, hasBit, readU32, u32s } from './wire.js';

/** Feature bits of the balloon by their names in the specification. */
export const BALLOON_F = {
  MUST_TELL_HOST: 0,
  STATS_VQ: 1,
  DEFLATE_ON_OOM: 2,
  FREE_PAGE_HINT: 3,
  PAGE_POISON: 4,
  REPORTING: 5,
} as const;

/** Offsets in the config space. */
export const CONFIG_NUM_PAGES = 0;
export const CONFIG_ACTUAL = 4;
export const CONFIG_POISON_VAL = 12;

const STAT_BYTES = 10;
const MAX_STATS = 32;
const STAT_MEMTOT = 5;
/** Linux reports at most this many ranges at once. */
const REPORT_CAPACITY = 32;

export type Role = 'inflate' | 'deflate' | 'stats' | 'hint' | 'reporting' | 'cache' | 'reclaim';
/** Those that are told of pages. */
type PageRole = 'inflate' | 'deflate' | 'cache' | 'reclaim';

/**
 * How queues are numbered: over the features acked, as Linux does; over those offered, as VMMs with a balloon of
 * their own do; or as the specification's list has them.
 */
export type Numbering = 'linux-compressed' | 'by-offered' | 'spec-fixed';

const OPTIONAL_ROLES: readonly (readonly [Role, number])[] = [
  ['stats', BALLOON_F.STATS_VQ],
  ['hint', BALLOON_F.FREE_PAGE_HINT],
  ['reporting', BALLOON_F.REPORTING],
  ['cache', CACHE_F.RANGES],
  ['reclaim', CACHE_F.TELL_RECLAIM],
];

/** What Linux acks when its pages are neither poisoned nor initialised on free. */
export const LINUX_FEATURES = bits(
  BALLOON_F.MUST_TELL_HOST,
  BALLOON_F.STATS_VQ,
  BALLOON_F.DEFLATE_ON_OOM,
  BALLOON_F.FREE_PAGE_HINT,
  BALLOON_F.REPORTING,
  F_INDIRECT_DESC,
  F_EVENT_IDX,
  F_VERSION_1,
);

/** What the driver of guest/virtio_balloon acks, which has no hints. */
export const BOTH_LIMITS =
  (LINUX_FEATURES & ~bits(BALLOON_F.FREE_PAGE_HINT)) | bits(...Object.values(CACHE_F));

/** The config space and the queues of QEMU's device for it. */
export const BOTH_SPACE = { queueCount: 7, configBytes: 44 };

export interface Range {
  gpa: number;
  len: number;
}

export interface BalloonDriverOptions {
  /** Feature bits to ack of those offered (default `LINUX_FEATURES`); add F_RING_PACKED for packed rings. */
  features?: bigint;
  numbering?: Numbering;
  /** Queues that the driver leaves alone although it acked their feature. */
  without?: readonly Role[];
  /** Entries of each ring (default 64). */
  ringSize?: number;
  /** The most PFNs in one buffer (default 256, as Linux; Windows: 512). */
  pfnsPerBuffer?: number;
  /** Written to the config space before the start, and PAGE_POISON is acked, when given. */
  poisonValue?: number;
  /** The statistics the guest gives, tag by tag, asked each time the buffer is filled (default: total memory). */
  stats?: () => readonly (readonly [tag: number, value: bigint])[];
  /** Where rings and buffers lie (default 1 MiB). */
  areaGpa?: number;
  timeoutMs?: number;
}

/** Numbers of the configured queues. */
export function numberQueues(numbering: Numbering, acked: bigint, offered: bigint): Map<Role, number> {
  const numbers = new Map<Role, number>([
    ['inflate', 0],
    ['deflate', 1],
  ]);
  let next = 2;
  for (const [role, bit] of OPTIONAL_ROLES) {
    const counted = {
      'linux-compressed': hasBit(acked, bit),
      'by-offered': hasBit(offered, bit),
      'spec-fixed': true,
    }[numbering];
    if (hasBit(acked, bit)) numbers.set(role, next);
    if (counted) next++;
  }
  return numbers;
}

export class BalloonDriver {
  readonly ackedFeatures: bigint;
  readonly queueNumbers: Map<Role, number>;
  readonly pfnsPerBuffer: number;
  /** The first page after what the driver itself uses. */
  readonly firstFreePfn: number;
  /** How often the statistics buffer has come back. */
  statsRequests = 0;

  readonly #frontend: Frontend;
  readonly #options: BalloonDriverOptions;
  readonly #timeoutMs: number;
  readonly #rings = new Map<Role, GuestRing>();
  readonly #pfnsGpa: Readonly<Record<PageRole, number>>;
  readonly #statsGpa: number;
  readonly #statsRequested = new Signal();
  readonly #balloon = new Set<number>();
  #nextPfn: number;
  #following = false;
  #walk: Promise<void> = Promise.resolve();
  #walkPending = false;
  #lock: Promise<unknown> = Promise.resolve();
  #failure: Error | null = null;

  private constructor(frontend: Frontend, options: BalloonDriverOptions) {
    this.#frontend = frontend;
    this.#options = options;
    this.#timeoutMs = options.timeoutMs ?? PATIENCE_MS;
    this.pfnsPerBuffer = options.pfnsPerBuffer ?? 256;
    const poison = options.poisonValue === undefined ? 0n : bits(BALLOON_F.PAGE_POISON);
    this.ackedFeatures = frontend.offeredFeatures & ((options.features ?? LINUX_FEATURES) | poison);
    this.queueNumbers = numberQueues(
      options.numbering ?? 'linux-compressed',
      this.ackedFeatures,
      frontend.offeredFeatures,
    );
    for (const role of options.without ?? []) this.queueNumbers.delete(role);
    let gpa = options.areaGpa ?? 0x100000;
    const take = (lenBytes: number): number => {
      const start = gpa;
      gpa = alignUp(gpa + lenBytes, PAGE_BYTES);
      return start;
    };
    const buffer = (): number => take(8 * this.pfnsPerBuffer);
    this.#pfnsGpa = { inflate: buffer(), deflate: buffer(), cache: buffer(), reclaim: buffer() };
    this.#statsGpa = take(STAT_BYTES * MAX_STATS);
    const ringOptions = {
      size: options.ringSize ?? 64,
      eventIdx: hasBit(this.ackedFeatures, F_EVENT_IDX),
      indirectEntries: REPORT_CAPACITY,
    };
    const packed = hasBit(this.ackedFeatures, F_RING_PACKED);
    for (const role of this.queueNumbers.keys()) {
      const where = { ...ringOptions, gpa };
      const ring = packed ? new PackedRingDriver(frontend.ram, where) : new RingDriver(frontend.ram, where);
      this.#rings.set(role, ring);
      take(ring.endGpa - gpa);
    }
    this.firstFreePfn = gpa / PAGE_BYTES;
    this.#nextPfn = this.firstFreePfn;
  }

  /** Probes the device of a connected frontend: features, queues, poison value, primed statistics, start. */
  static async start(frontend: Frontend, options: BalloonDriverOptions = {}): Promise<BalloonDriver> {
    const driver = new BalloonDriver(frontend, options);
    try {
      await driver.#start();
    } catch (error) {
      driver.#closeRings();
      throw error;
    }
    return driver;
  }

  /** The ring of a role; throws when its feature was not acked. */
  ring(role: Role): GuestRing {
    const ring = this.#rings.get(role);
    if (ring === undefined) throw new Error(`there is no ${role} queue`);
    return ring;
  }

  /** Pages now in the balloon, oldest first. */
  get balloonPfns(): ReadonlySet<number> {
    return this.#balloon;
  }

  /** Puts these pages into the balloon, buffer by buffer. */
  async inflate(pfns: readonly number[]): Promise<void> {
    for (const part of this.#parts(pfns)) {
      await this.#exclusively(async () => {
        await this.#tell('inflate', part);
        for (const pfn of part) this.#balloon.add(pfn);
        await this.#writeActual();
      });
    }
    await this.readTargetPages();
  }

  /** Takes these pages out of the balloon, buffer by buffer. */
  async deflate(pfns: readonly number[]): Promise<void> {
    for (const part of this.#parts(pfns)) {
      await this.#exclusively(async () => {
        await this.#tell('deflate', part);
        for (const pfn of part) this.#balloon.delete(pfn);
        await this.#writeActual();
      });
    }
    await this.readTargetPages();
  }

  /** Reports free ranges of guest memory, at most 32 in a chain, and waits for the acks. One call at a time. */
  async report(ranges: readonly Range[]): Promise<void> {
    const ring = this.ring('reporting');
    const indirect = hasBit(this.ackedFeatures, F_INDIRECT_DESC);
    for (let i = 0; i < ranges.length; i += REPORT_CAPACITY) {
      const chain = ranges.slice(i, i + REPORT_CAPACITY).map((range) => ({ ...range, writable: true }));
      await this.#exchange(ring, chain, indirect);
    }
  }

  /** Offers one buffer of PFNs just as given, waits for its ack, and writes nothing to the config space. */
  async tellPfns(role: 'inflate' | 'deflate', pfns: readonly number[]): Promise<void> {
    if (pfns.length > this.pfnsPerBuffer) throw new Error(`a buffer holds ${this.pfnsPerBuffer} PFNs`);
    await this.#exclusively(() => this.#tell(role, pfns));
  }

  /** Offers one buffer of blocks just as given, and waits for its ack. */
  async tellBlocks(role: PageRole, blocks: readonly Block[]): Promise<void> {
    await this.#exclusively(() => this.#offer(role, ranges(blocks)));
  }

  /** num_pages: what the host wants in the balloon, in pages. */
  async readTargetPages(): Promise<number> {
    return readU32(await this.#frontend.getConfig(), CONFIG_NUM_PAGES);
  }

  /** From now on walks to num_pages whenever the config space changes, one buffer at a time. */
  followTarget(): void {
    this.#following = true;
    this.#frontend.channel.onConfigChange = () => this.#startWalk();
    this.#startWalk();
  }

  /** Ends `followTarget` after the step it is at. */
  async stopFollowing(): Promise<void> {
    this.#following = false;
    this.#frontend.channel.onConfigChange = null;
    await this.idle();
  }

  /** Resolves when the balloon has arrived at the last target seen; throws what went wrong on the way. */
  async idle(): Promise<void> {
    await this.#walk;
    this.#throwFailure();
  }

  /** Resolves when the statistics buffer has come back `count` times in all. */
  async waitStatsRequests(count: number, timeoutMs = this.#timeoutMs): Promise<void> {
    await this.#statsRequested.until(
      () => {
        this.#throwFailure();
        return this.statsRequests >= count ? true : null;
      },
      timeoutMs,
      () => `the statistics buffer came back ${this.statsRequests} of ${count} times`,
    );
  }

  /** The driver is removed: everything is deflated, then the device is reset. */
  async unload(): Promise<void> {
    if (this.#following) await this.stopFollowing();
    await this.deflate([...this.#balloon]);
    await this.reset();
  }

  /** A hard reset: the device is stopped and nobody tells it anything. Afterwards a new driver can start. */
  async reset(): Promise<void> {
    if (this.#following) await this.stopFollowing();
    await this.#frontend.stop();
    this.#closeRings();
  }

  async #start(): Promise<void> {
    const frontend = this.#frontend;
    await frontend.getConfig();
    const { poisonValue } = this.#options;
    if (hasBit(this.ackedFeatures, BALLOON_F.PAGE_POISON)) {
      await frontend.writeConfigField(CONFIG_POISON_VAL, poisonValue ?? 0);
    }
    const statsRing = this.#rings.get('stats');
    if (statsRing !== undefined) {
      statsRing.onCall = () => this.#serveStats(statsRing);
      this.#offerStats(statsRing);
    }
    await frontend.start(
      this.ackedFeatures,
      [...this.queueNumbers].map(([role, index]) => ({ index, ring: this.ring(role) })),
    );
    await this.readTargetPages();
  }

  #closeRings(): void {
    for (const ring of this.#rings.values()) ring.close();
  }

  #parts(pfns: readonly number[]): number[][] {
    const parts: number[][] = [];
    for (let i = 0; i < pfns.length; i += this.pfnsPerBuffer)
      parts.push(pfns.slice(i, i + this.pfnsPerBuffer));
    return parts;
  }

  /** Linux serves its inflate and deflate queues under one lock. */
  #exclusively<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#lock.then(task);
    this.#lock = result.catch(() => undefined);
    return result;
  }

  async #tell(role: 'inflate' | 'deflate', pfns: readonly number[]): Promise<void> {
    const blocks = hasBit(this.ackedFeatures, CACHE_F.RANGES);
    await this.#offer(role, blocks ? ranges(pfns.map((pfn) => ({ pfn, order: 0 }))) : u32s(...pfns));
  }

  async #offer(role: PageRole, bytes: Uint8Array): Promise<void> {
    const gpa = this.#pfnsGpa[role];
    this.#frontend.ram.write(gpa, bytes);
    await this.#exchange(this.ring(role), [{ gpa, len: bytes.length }], false);
  }

  async #exchange(ring: GuestRing, chain: readonly ChainBuffer[], indirect: boolean): Promise<void> {
    const head = ring.add(chain, { indirect });
    ring.kick();
    const used = await ring.waitUsed(1, this.#timeoutMs);
    if (used.length !== 1 || used[0]?.head !== head) {
      throw new Error(`offered ${head}, got back ${used.map((entry) => entry.head).join(', ')}`);
    }
  }

  async #writeActual(): Promise<void> {
    await this.#frontend.writeConfigField(CONFIG_ACTUAL, this.#balloon.size);
  }

  #offerStats(ring: GuestRing): void {
    const stats = this.#options.stats?.() ?? [[STAT_MEMTOT, this.#ramBytes()]];
    const bytes = new Uint8Array(STAT_BYTES * stats.length);
    const view = new DataView(bytes.buffer);
    stats.forEach(([tag, value], i) => {
      view.setUint16(STAT_BYTES * i, tag, true);
      view.setBigUint64(STAT_BYTES * i + 2, value, true);
    });
    this.#frontend.ram.write(this.#statsGpa, bytes);
    ring.add([{ gpa: this.#statsGpa, len: bytes.length }]);
    ring.enableCalls();
    ring.kick();
  }

  #ramBytes(): bigint {
    return BigInt(this.#frontend.ram.regions.reduce((sum, region) => sum + region.lenBytes, 0));
  }

  #serveStats(ring: GuestRing): void {
    try {
      ring.collectUsed().forEach(() => {
        this.statsRequests++;
        this.#offerStats(ring);
      });
    } catch (error) {
      this.#fail(error);
    }
    this.#statsRequested.raise();
  }

  #startWalk(): void {
    // The latest target is read anyway, so a walk that is waiting stands for every change before it begins.
    if (this.#walkPending) return;
    this.#walkPending = true;
    this.#walk = this.#walk
      .then(async () => {
        this.#walkPending = false;
        await this.#walkToTarget();
      })
      .catch((error: unknown) => this.#fail(error));
  }

  async #walkToTarget(): Promise<void> {
    while (this.#following) {
      const missing = (await this.readTargetPages()) - this.#balloon.size;
      if (missing === 0) return;
      const step = Math.min(Math.abs(missing), this.pfnsPerBuffer);
      if (missing < 0) await this.deflate(firstOf(this.#balloon, step));
      else {
        const pfns = this.#freePages(step);
        if (pfns.length === 0) return;
        await this.inflate(pfns);
      }
    }
  }

  /** Up to `count` pages that are not in the balloon, going round through guest memory. */
  #freePages(count: number): number[] {
    const { regions } = this.#frontend.ram;
    const end = Math.max(...regions.map((region) => (region.gpa + region.lenBytes) / PAGE_BYTES));
    const pfns: number[] = [];
    for (let looked = this.firstFreePfn; looked < end && pfns.length < count; looked++) {
      const pfn = this.#nextPfn;
      this.#nextPfn = pfn + 1 < end ? pfn + 1 : this.firstFreePfn;
      const gpa = pfn * PAGE_BYTES;
      const exists = regions.some((region) => gpa >= region.gpa && gpa < region.gpa + region.lenBytes);
      if (exists && !this.#balloon.has(pfn)) pfns.push(pfn);
    }
    return pfns;
  }

  #fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error));
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure;
  }
}

function firstOf(pfns: ReadonlySet<number>, count: number): number[] {
  const first: number[] = [];
  for (const pfn of pfns) {
    if (first.length === count) break;
    first.push(pfn);
  }
  return first;
}
