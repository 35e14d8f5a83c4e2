// A guest's page cache balloon driver, as docs/cache-balloon.md has it: one buffer at a time, and it waits for its ack.
import type { Frontend } from './frontend.js';
import { PAGE_BYTES } from './guest-ram.js';
import { alignUp, F_VERSION_1, type ChainBuffer } from './guest-ring.js';
import { RingDriver } from './ring-driver.js';
import { bits, hasBit, readU32, u32s, u64s } from './wire.js';

export const CACHE_F = { RANGES: 16, TELL_RECLAIM: 17, LOCK: 18 } as const;
export const ALL_CACHE_FEATURES = bits(F_VERSION_1, ...Object.values(CACHE_F));
/** The device of 2012. */
export const NO_CACHE_FEATURES = bits(F_VERSION_1);
export const CACHE_CONFIG_BYTES = 28;
export const CACHE_CONFIG = {
  numPages: 0,
  actual: 4,
  pagesTotal: 8,
  pagesFree: 12,
  needStats: 16,
  lock: 20,
  locked: 24,
} as const;

const RINGS_GPA = 0x100000;
const BUFFER_GPA = RINGS_GPA + 16 * PAGE_BYTES;

export interface Block {
  pfn: number;
  order: number;
}

export class CacheDriver {
  readonly features: bigint;
  readonly cacheq: RingDriver;
  /** Null without TELL_RECLAIM. */
  readonly reclaimq: RingDriver | null;
  readonly #frontend: Frontend;

  private constructor(frontend: Frontend, features: bigint) {
    this.#frontend = frontend;
    this.features = frontend.offeredFeatures & features;
    this.cacheq = new RingDriver(frontend.ram, { size: 64, gpa: RINGS_GPA });
    const gpa = alignUp(this.cacheq.endGpa, PAGE_BYTES);
    const tells = hasBit(this.features, CACHE_F.TELL_RECLAIM);
    this.reclaimq = tells ? new RingDriver(frontend.ram, { size: 64, gpa }) : null;
  }

  static async start(frontend: Frontend, features = ALL_CACHE_FEATURES): Promise<CacheDriver> {
    const driver = new CacheDriver(frontend, features);
    await frontend.getConfig();
    const queues = [{ index: 0, ring: driver.cacheq }];
    if (driver.reclaimq !== null) queues.push({ index: 1, ring: driver.reclaimq });
    await frontend.start(driver.features, queues);
    return driver;
  }

  /** Resolves with the ack. */
  add(blocks: readonly Block[]): Promise<void> {
    return this.#tell(this.cacheq, blocks);
  }

  reclaimed(blocks: readonly Block[]): Promise<void> {
    if (this.reclaimq === null) throw new Error('TELL_RECLAIM was not acked');
    return this.#tell(this.reclaimq, blocks);
  }

  /** A buffer of the test's choosing, which may never come back. */
  offer(ring: RingDriver, bytes: Uint8Array, buffer: Partial<ChainBuffer> = {}): void {
    this.#frontend.ram.write(BUFFER_GPA, bytes);
    ring.add([{ gpa: BUFFER_GPA, len: bytes.length, ...buffer }]);
    ring.kick();
  }

  /** A hard reset. */
  async reset(): Promise<void> {
    await this.#frontend.stop();
    this.cacheq.close();
    this.reclaimq?.close();
  }

  async read(field: number): Promise<number> {
    return readU32(await this.#frontend.getConfig(), field);
  }

  write(field: number, value: number): Promise<void> {
    return this.#frontend.writeConfigField(field, value);
  }

  async #tell(ring: RingDriver, blocks: readonly Block[]): Promise<void> {
    this.offer(ring, hasBit(this.features, CACHE_F.RANGES) ? ranges(blocks) : frames(blocks));
    await ring.waitUsed(1);
  }
}

/** One by one. */
export function pages(first: number, count: number): Block[] {
  return Array.from({ length: count }, (_, n) => ({ pfn: first + n, order: 0 }));
}

export function ranges(blocks: readonly Block[]): Uint8Array {
  return u64s(...blocks.map(({ pfn, order }) => (BigInt(pfn) << 12n) | BigInt(order)));
}

export function frames(blocks: readonly Block[]): Uint8Array {
  return u32s(...blocks.map(({ pfn }) => pfn));
}
