import { BalloonDriver, LINUX_FEATURES, BALLOON_F } from '../test/support/balloon-driver.js';
import { Frontend } from '../test/support/frontend.js';
import { GuestRam } from '../test/support/guest-ram.js';
import { RingDriver } from '../test/support/ring-driver.js';
import { bits } from '../test/support/wire.js';
import { PFNS_PER_KICK } from './patterns.js';

/** Rings and the buffer lie below. */
export const FIRST_PFN = 4096;
const FIRST_BYTES = FIRST_PFN * 4096;
const BUFFER_GPA = FIRST_BYTES - 2 ** 20;
const CHUNK = new Uint8Array(2 ** 20).fill(0xa5);

export interface RawDriverOptions {
  socketPath: string;
  /** Memory to give up. */
  mib: number;
  mustTellHost?: boolean;
}

/** A VM without a VMM: this process writes the kick eventfd itself and looks at used->idx until the ack is there. */
export class RawDriver {
  readonly frontend: Frontend;
  readonly #inflate: RingDriver;
  readonly #deflate: RingDriver;

  private constructor(frontend: Frontend, driver: BalloonDriver) {
    this.frontend = frontend;
    this.#inflate = split(driver.ring('inflate'));
    this.#deflate = split(driver.ring('deflate'));
  }

  static async start({ socketPath, mib, mustTellHost = true }: RawDriverOptions): Promise<RawDriver> {
    const ram = new GuestRam([{ gpa: 0, lenBytes: FIRST_BYTES + mib * 2 ** 20 }]);
    const frontend = new Frontend({ socket: socketPath, ram });
    await frontend.connect();
    const without = mustTellHost ? 0n : bits(BALLOON_F.MUST_TELL_HOST);
    return new RawDriver(
      frontend,
      await BalloonDriver.start(frontend, { features: LINUX_FEATURES & ~without }),
    );
  }

  /** Writes through the file, so that no page table but the file's own knows the pages. */
  populate(mib: number): void {
    for (let n = 0; n < mib; n++) this.frontend.ram.write(FIRST_BYTES + n * 2 ** 20, CHUNK);
  }

  /** Microseconds from the kick to the ack of one buffer. */
  inflate(pfns: Uint8Array): number {
    return this.#tell(this.#inflate, pfns);
  }

  deflate(pfns: Uint8Array): number {
    return this.#tell(this.#deflate, pfns);
  }

  /** Puts as many buffers as the ring holds into it and kicks; returns how many were acked meanwhile. */
  flood(pfns: Uint8Array): number {
    const ring = this.#inflate;
    const acked = ring.collectUsed().length;
    this.frontend.ram.write(BUFFER_GPA, pfns);
    while (ring.outstanding < ring.size) {
      ring.add([{ gpa: BUFFER_GPA, len: pfns.length }], { publish: false });
    }
    ring.kick();
    return acked;
  }

  close(): void {
    this.frontend.close();
  }

  #tell(ring: RingDriver, pfns: Uint8Array): number {
    if (pfns.length > 4 * PFNS_PER_KICK * 64) throw new Error('a longer buffer than there is room for');
    this.frontend.ram.write(BUFFER_GPA, pfns);
    const before = ring.readUsedIndex();
    ring.add([{ gpa: BUFFER_GPA, len: pfns.length }]);
    const start = process.hrtime.bigint();
    ring.kick();
    while (ring.readUsedIndex() === before);
    const micros = Number(process.hrtime.bigint() - start) / 1000;
    ring.collectUsed();
    return micros;
  }
}

function split(ring: unknown): RingDriver {
  if (ring instanceof RingDriver) return ring;
  throw new Error('not a split ring');
}
