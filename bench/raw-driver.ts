import { writeSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from '../test/support/balloon-driver.js';
import { Frontend } from '../test/support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../test/support/guest-ram.js';
import { alignUp } from '../test/support/guest-ring.js';
import { bits } from '../test/support/wire.js';
import { ANY_VMM } from '../test/support/vmm-orders.js';
import { RawRing } from './raw-ring.js';
import { PFNS_PER_KICK } from './patterns.js';

const MIB = 2 ** 20;
const FILL = new Uint8Array(MIB).fill(0xa5);
/** Behind the rings of BalloonDriver. */
const BUFFERS_GPA = 4 * MIB;
/** Where the pages to give up begin, as a guest's memory does. */
const HUGE_PAGE_BYTES = 2 * MIB;
const FREE_WITHIN_MS = 60_000;

export interface RawDriverOptions {
  socketPath: string;
  /** Memory to give up. */
  mib: number;
  /** Default true. */
  mustTellHost?: boolean;
  /** Of the longest buffer (default 256, as Linux has it). */
  pfnsPerBuffer?: number;
  /** Buffers in the ring at a time (default 1, as Linux has it; a power of two up to 64). */
  depth?: number;
}

/**
 * A VM without a VMM: it connects and starts as QEMU and Linux do, statistics included, and then this process plays
 * the inflate and deflate queues as cheaply as it can.
 */
export class RawDriver {
  readonly inflating: RawRing;
  readonly deflating: RawRing;
  /** The first page to give up. */
  readonly firstPfn: number;
  readonly pages: number;
  readonly #frontend: Frontend;

  readonly #emptyBytes: number;

  private constructor(frontend: Frontend, driver: BalloonDriver, layout: Layout) {
    const { depth, bufferBytes, buffersGpa, firstPfn, pages } = layout;
    const ring = (role: 'inflate' | 'deflate'): RawRing =>
      new RawRing(frontend.ram, driver.ring(role), depth, buffersGpa[role], bufferBytes);
    this.#frontend = frontend;
    this.inflating = ring('inflate');
    this.deflating = ring('deflate');
    this.firstPfn = firstPfn;
    this.pages = pages;
    this.#emptyBytes = frontend.ram.allocatedBytes();
  }

  static async start(options: RawDriverOptions): Promise<RawDriver> {
    const { socketPath, mustTellHost = true } = options;
    const layout = layOut(options);
    const lenBytes = (layout.firstPfn + layout.pages) * PAGE_BYTES;
    const frontend = new Frontend({
      order: ANY_VMM,
      socket: socketPath,
      ram: new GuestRam([{ gpa: 0, lenBytes }]),
    });
    await frontend.connect();
    const without = mustTellHost ? 0n : bits(BALLOON_F.MUST_TELL_HOST);
    const driver = await BalloonDriver.start(frontend, { features: LINUX_FEATURES & ~without });
    return new RawDriver(frontend, driver, layout);
  }

  /** Brings all its pages into being. Through the file: no page table of ours has to forget them later. */
  populate(): void {
    const region = this.#frontend.ram.find(this.firstPfn * PAGE_BYTES, PAGE_BYTES);
    for (let n = 0; n < this.pages * PAGE_BYTES; n += MIB) {
      writeSync(region.file.fd, FILL, 0, MIB, this.firstPfn * PAGE_BYTES + n);
    }
  }

  /** Resolves once the host has taken everything back but what the driver itself uses. */
  async waitFree(): Promise<void> {
    for (const end = performance.now() + FREE_WITHIN_MS; ; await pause(1)) {
      const leftBytes = this.#frontend.ram.allocatedBytes() - this.#emptyBytes;
      if (leftBytes <= 0) return;
      if (performance.now() > end) throw new Error(`${leftBytes} bytes are still allocated`);
    }
  }

  close(): void {
    this.#frontend.close();
  }
}

type Layout = ReturnType<typeof layOut>;

function layOut({ mib, pfnsPerBuffer = PFNS_PER_KICK, depth = 1 }: RawDriverOptions) {
  const bufferBytes = 4 * pfnsPerBuffer;
  const deflateGpa = alignUp(BUFFERS_GPA + depth * bufferBytes, PAGE_BYTES);
  return {
    depth,
    bufferBytes,
    buffersGpa: { inflate: BUFFERS_GPA, deflate: deflateGpa },
    firstPfn: alignUp(deflateGpa + depth * bufferBytes, HUGE_PAGE_BYTES) / PAGE_BYTES,
    pages: (mib * MIB) / PAGE_BYTES,
  };
}
