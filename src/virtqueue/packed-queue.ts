import {
  PACKED_DESC_BYTES,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
} from '../../protocol/virtio/ring-packed.js';
import {
  crossedEvent,
  DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../../protocol/virtio/ring-split.js';
import { DriverError } from '../memory/errors.js';
import { guestAddress, type Chain, type Segment } from './chain.js';
import { readIndirectTable } from './indirect.js';
import type { Queue, RingLayout } from './queue.js';
import { RingViews } from './ring-views.js';

/** A position in the ring: a descriptor and the wrap counter that goes with it. */
interface Cursor {
  index: number;
  wrap: 0 | 1;
}

/**
 * A packed virtqueue (virtio 1.3, 2.8) seen by the device. A used descriptor is visible as soon as its flags are
 * written, so publish() writes the first of a batch last: the driver sees all of them or none.
 */
export class PackedQueue implements Queue {
  readonly #layout: RingLayout;
  readonly #size: number;
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;
  readonly #driverEvent: Uint16Array;
  readonly #deviceEvent: Uint16Array;
  readonly #indirect: Uint8Array;
  readonly #views = new RingViews();
  readonly #done: { chain: Chain; writtenBytes: number }[] = [];
  /** Given back after the chains before it: the driver counts other slots for it than were looked at. */
  #refused: Chain | null = null;
  #avail: Cursor;
  #used: Cursor;

  constructor(layout: RingLayout) {
    this.#layout = layout;
    this.#size = layout.size;
    try {
      const ring = this.#views.of(layout.descriptors);
      this.#words = new Uint32Array(ring);
      this.#halves = new Uint16Array(ring);
      this.#driverEvent = new Uint16Array(this.#views.of(layout.driver));
      this.#deviceEvent = new Uint16Array(this.#views.of(layout.device));
    } catch (error) {
      this.close();
      throw error;
    }
    this.#indirect = new Uint8Array(layout.indirect ? layout.size * DESC_BYTES : 0);
    this.#used = this.#startAt(this.#lastBase());
    this.#avail = { ...this.#used };
    this.#layout.position.fill(this.base);
  }

  get base(): number {
    const position = this.#used.index | (this.#used.wrap << 15);
    return ((position << 16) | position) >>> 0;
  }

  /** A process before this one may have ended on both sides of its publishing. */
  #lastBase(): number {
    const [at = 0, next = 0] = this.#layout.position;
    const published = at !== next && !this.#isAvailable(cursor(at >>> 16, this.#size));
    return published ? next : at;
  }

  pop(): Chain | null {
    if (!this.#isAvailable(this.#avail)) return null;
    const start = { ...this.#avail };
    const segments: Segment[] = [];
    let slots = 0;
    let id = 0;
    for (;;) {
      const at = this.#avail.index;
      // The flags of the first were read with acquire order above; what follows is published with it.
      const flags = this.#halves[8 * at + 7] ?? 0;
      const gpaLow = this.#words[4 * at] ?? 0;
      const gpaHigh = this.#words[4 * at + 1] ?? 0;
      const lenBytes = this.#words[4 * at + 2] ?? 0;
      id = this.#halves[8 * at + 6] ?? 0;
      slots++;
      this.#advance(this.#avail, 1);
      try {
        const gpa = guestAddress(gpaLow, gpaHigh);
        if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
          // virtio 1.3, 2.8.19: indirect and chained descriptors are not mixed in one buffer.
          if (slots > 1 || (flags & VIRTQ_DESC_F_NEXT) !== 0) {
            throw new DriverError('an indirect descriptor is inside a chain of a packed ring');
          }
          this.#collectIndirect(gpa, lenBytes, segments);
          break;
        }
        segments.push({ gpa, lenBytes, writable: (flags & VIRTQ_DESC_F_WRITE) !== 0 });
        if ((flags & VIRTQ_DESC_F_NEXT) === 0) break;
        if (slots === this.#size) throw new DriverError('descriptor chain is longer than the queue');
      } catch (error) {
        this.#refused = { id, slots, segments };
        throw error;
      }
    }
    if (id >= this.#size) {
      this.#avail = start;
      throw new DriverError(`buffer id ${id} is beyond a queue of ${this.#size}`);
    }
    return { id, slots, segments };
  }

  addUsed(chain: Chain, writtenBytes: number): void {
    this.#done.push({ chain, writtenBytes });
  }

  publish(): boolean {
    if (this.#refused !== null) this.addUsed(this.#refused, 0);
    this.#refused = null;
    const first = this.#done[0];
    if (first === undefined) return false;
    let slots = 0;
    const start = { ...this.#used };
    for (const entry of this.#done) {
      this.#writeUsed(this.#used, entry.chain.id, entry.writtenBytes);
      if (entry !== first) this.#writeFlags(this.#used, entry.writtenBytes);
      this.#advance(this.#used, entry.chain.slots);
      slots += entry.chain.slots;
    }
    this.#layout.position[1] = this.base;
    this.#writeFlags(start, first.writtenBytes);
    this.#layout.position[0] = this.base;
    this.#done.length = 0;
    return this.#wantsCall(slots);
  }

  armNotify(): boolean {
    if (this.#layout.eventIdx) {
      Atomics.store(this.#deviceEvent, 0, this.#avail.index | (this.#avail.wrap << 15));
      this.#setDeviceFlags(RING_EVENT_FLAGS_DESC);
    } else {
      this.#setDeviceFlags(RING_EVENT_FLAGS_ENABLE);
    }
    return this.#isAvailable(this.#avail);
  }

  disarmNotify(): void {
    this.#setDeviceFlags(RING_EVENT_FLAGS_DISABLE);
  }

  close(): void {
    this.#views.close();
  }

  /**
   * Where to start for what SET_VRING_BASE said: bits 0-15 are the avail position, 16-31 the used one. A frontend
   * that leaves the upper half out is recognised by nothing being available there.
   */
  #startAt(base: number): Cursor {
    const avail = cursor(base & 0xffff, this.#size);
    const used = cursor(base >>> 16, this.#size);
    return this.#isAvailable(used) ? used : avail;
  }

  #isAvailable(at: Cursor): boolean {
    const flags = Atomics.load(this.#halves, 8 * at.index + 7);
    const avail = (flags & VIRTQ_DESC_F_AVAIL) !== 0 ? 1 : 0;
    const used = (flags & VIRTQ_DESC_F_USED) !== 0 ? 1 : 0;
    return avail === at.wrap && used !== at.wrap;
  }

  #advance(cursor: Cursor, slots: number): void {
    cursor.index += slots;
    if (cursor.index >= this.#size) {
      cursor.index -= this.#size;
      cursor.wrap = cursor.wrap === 1 ? 0 : 1;
    }
  }

  #writeUsed(at: Cursor, id: number, writtenBytes: number): void {
    this.#words[4 * at.index + 2] = writtenBytes;
    this.#halves[8 * at.index + 6] = id;
    this.#layout.onWrite?.('descriptors', at.index * PACKED_DESC_BYTES, PACKED_DESC_BYTES);
  }

  #writeFlags(at: Cursor, writtenBytes: number): void {
    const wrap = at.wrap === 1 ? VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED : 0;
    Atomics.store(this.#halves, 8 * at.index + 7, wrap | (writtenBytes > 0 ? VIRTQ_DESC_F_WRITE : 0));
  }

  #wantsCall(slots: number): boolean {
    const flags = Atomics.load(this.#driverEvent, 1);
    if (flags === RING_EVENT_FLAGS_DISABLE) return false;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.#layout.eventIdx) return true;
    const offWrap = Atomics.load(this.#driverEvent, 0);
    // The event's wrap counter tells whether it names a descriptor of this lap or of the one before.
    const lap = offWrap >>> 15 === this.#used.wrap ? 0 : this.#size;
    const event = ((offWrap & 0x7fff) - lap) & 0xffff;
    return crossedEvent(event, this.#used.index, (this.#used.index - slots) & 0xffff);
  }

  #setDeviceFlags(flags: number): void {
    Atomics.store(this.#deviceEvent, 1, flags);
    this.#layout.onWrite?.('device', 0, 4);
  }

  #collectIndirect(gpa: number, lenBytes: number, segments: Segment[]): void {
    if (!this.#layout.indirect)
      throw new DriverError('an indirect descriptor came without VIRTIO_F_INDIRECT_DESC');
    const table = this.#indirect;
    const count = readIndirectTable(this.#layout.memory, gpa, lenBytes, this.#size, table);
    const view = new DataView(table.buffer);
    // virtio 1.3, 2.8.7: the table is in order and only VIRTQ_DESC_F_WRITE means something in it.
    for (let at = 0; at < count * DESC_BYTES; at += DESC_BYTES) {
      segments.push({
        gpa: guestAddress(view.getUint32(at, true), view.getUint32(at + 4, true)),
        lenBytes: view.getUint32(at + 8, true),
        writable: (view.getUint16(at + 14, true) & VIRTQ_DESC_F_WRITE) !== 0,
      });
    }
  }
}

/** Half of a base. */
function cursor(half: number, size: number): Cursor {
  const index = half & 0x7fff;
  if (index >= size) throw new DriverError(`ring base ${index} is beyond a queue of ${size}`);
  return { index, wrap: (half >>> 15) as 0 | 1 };
}
