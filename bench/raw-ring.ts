import { DESC_BYTES } from '../protocol/virtio/ring-split.js';
import { signalEvent } from '../src/os/eventfd.js';
import type { GuestRam } from '../test/support/guest-ram.js';
import { needsEvent, type GuestRing } from '../test/support/guest-ring.js';

/** Looks at used->idx before an ack is given up for lost: some ten seconds. */
const MAX_LOOKS = 1e9;

/**
 * The cheapest driver of one split ring with EVENT_IDX: `depth` descriptors, each with a buffer of its own for ever,
 * take turns, so that a kick is a copy, three fields and an eventfd, and nothing is allocated. The device gives chains
 * back in the order in which they were made available.
 */
export class RawRing {
  readonly depth: number;
  readonly #ring: GuestRing;
  readonly #size: number;
  readonly #descriptors: DataView;
  readonly #avail: Uint16Array;
  readonly #used: Uint16Array;
  readonly #buffers: Uint32Array;
  readonly #bufferBytes: number;
  #next = 0;

  /** `ring` is set up and was never used; the buffers lie from `buffersGpa` on. */
  constructor(ram: GuestRam, ring: GuestRing, depth: number, buffersGpa: number, bufferBytes: number) {
    this.depth = depth;
    this.#ring = ring;
    this.#size = ring.size;
    this.#bufferBytes = bufferBytes;
    const { descriptorGpa, driverGpa, deviceGpa } = ring.areas;
    this.#descriptors = new DataView(ram.view(descriptorGpa, DESC_BYTES * depth).buffer);
    this.#avail = new Uint16Array(ram.view(driverGpa, 6 + 2 * ring.size).buffer);
    this.#used = new Uint16Array(ram.view(deviceGpa, 6 + 8 * ring.size).buffer);
    this.#buffers = new Uint32Array(ram.view(buffersGpa, bufferBytes * depth).buffer);
    this.#buffers.fill(0);
    for (let n = 0; n < depth; n++) {
      this.#descriptors.setBigUint64(DESC_BYTES * n, BigInt(buffersGpa + n * bufferBytes), true);
    }
  }

  /** Chains that the device has. */
  get outstanding(): number {
    return (this.#next - this.#usedIndex) & 0xffff;
  }

  /** Makes page frame numbers available, asking for a call when they come back; fewer than `depth` are outstanding. */
  offer(pfns: Uint32Array): void {
    const head = this.#next % this.depth;
    this.#buffers.set(pfns, (head * this.#bufferBytes) / 4);
    this.#descriptors.setUint32(DESC_BYTES * head + 8, pfns.byteLength, true);
    this.#avail[2 + (this.#next % this.#size)] = head;
    Atomics.store(this.#avail, 2 + this.#size, this.#next);
    this.#next = (this.#next + 1) & 0xffff;
    Atomics.store(this.#avail, 1, this.#next);
  }

  /** Kicks if the device wants to hear of what was offered last. */
  kick(): void {
    const wanted = Atomics.load(this.#used, 2 + 4 * this.#size);
    if (needsEvent(wanted, this.#next, (this.#next - 1) & 0xffff)) signalEvent(this.#ring.kickFd);
  }

  /** Looks at the ring without a pause until everything came back. */
  spin(): void {
    for (let looks = 0; this.#usedIndex !== this.#next; looks++) {
      if (looks > MAX_LOOKS) throw new Error('no ack comes');
    }
  }

  /** Sleeps between calls until the device has at most `chains`. */
  async sleep(chains = 0): Promise<void> {
    for (;;) {
      const called = this.#ring.nextCall();
      if (this.outstanding <= chains) return;
      await called;
    }
  }

  /** Hands over all buffers, `depth` at a time, and sleeps until they came back. */
  async tell(buffers: Iterable<Uint32Array>): Promise<void> {
    for (const buffer of buffers) {
      await this.sleep(this.depth - 1);
      this.offer(buffer);
      this.kick();
    }
    await this.sleep();
  }

  get #usedIndex(): number {
    return Atomics.load(this.#used, 1);
  }
}
