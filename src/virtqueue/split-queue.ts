import {
  crossedEvent,
  DESC_BYTES,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../../protocol/virtio/ring-split.js';
import { DriverError } from '../memory/errors.js';
import { guestAddress, type Chain, type Segment } from './chain.js';
import { readIndirectTable } from './indirect.js';
import type { Queue, RingLayout } from './queue.js';
import { RingViews } from './ring-views.js';

const FLAGS = 0;
const IDX = 1;
const RING = 2;

/**
 * A split virtqueue (virtio 1.3, 2.7) seen by the device. Index fields are read and written atomically on 16-bit
 * views of the shared rings; every other guest field is read once into a local before it is checked.
 */
export class SplitQueue implements Queue {
  readonly #layout: RingLayout;
  readonly #size: number;
  /** Descriptor table as le32 words, four to a descriptor. */
  readonly #desc: Uint32Array;
  readonly #avail: Uint16Array;
  readonly #used: Uint16Array;
  /** Ring entries of the used ring: id, len, id, len, … */
  readonly #usedRing: Uint32Array;
  readonly #indirect: Uint8Array;
  readonly #views = new RingViews();
  #refused: Chain | null = null;
  #lastAvail: number;
  #lastUsed: number;
  #published: number;

  constructor(layout: RingLayout) {
    this.#layout = layout;
    this.#size = layout.size;
    try {
      this.#desc = new Uint32Array(this.#views.of(layout.descriptors));
      this.#avail = new Uint16Array(this.#views.of(layout.driver));
      const used = this.#views.of(layout.device);
      this.#used = new Uint16Array(used);
      this.#usedRing = new Uint32Array(used, 4, 2 * layout.size);
    } catch (error) {
      this.close();
      throw error;
    }
    this.#indirect = new Uint8Array(layout.indirect ? layout.size * DESC_BYTES : 0);
    // Whatever base the frontend names, what the driver has not seen as used is still to be done: a frontend
    // that passes the avail index would otherwise lose the statistics buffer for ever.
    this.#lastUsed = Atomics.load(this.#used, IDX);
    this.#lastAvail = this.#lastUsed;
    this.#published = this.#lastUsed;
  }

  get base(): number {
    return this.#lastUsed;
  }

  pop(): Chain | null {
    const available = (Atomics.load(this.#avail, IDX) - this.#lastAvail) & 0xffff;
    if (available === 0) return null;
    if (available > this.#size) {
      throw new DriverError(`avail index is ${available} ahead in a queue of ${this.#size}`);
    }
    const head = this.#avail[RING + (this.#lastAvail & (this.#size - 1))] ?? 0;
    if (head >= this.#size) throw new DriverError(`head ${head} is beyond a queue of ${this.#size}`);
    // The head is taken before its chain is read, and a chain that cannot be used is given back all the same.
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    const segments: Segment[] = [];
    try {
      this.#collect(head, segments);
    } catch (error) {
      this.#refused = { id: head, slots: 1, segments };
      throw error;
    }
    return { id: head, slots: 1, segments };
  }

  addUsed(chain: Chain, writtenBytes: number): void {
    const slot = this.#lastUsed & (this.#size - 1);
    this.#usedRing[2 * slot] = chain.id;
    this.#usedRing[2 * slot + 1] = writtenBytes;
    this.#layout.onWrite?.('device', 4 + 8 * slot, 8);
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
  }

  publish(): boolean {
    if (this.#refused !== null) this.addUsed(this.#refused, 0);
    this.#refused = null;
    const before = this.#published;
    if (before === this.#lastUsed) return false;
    this.#published = this.#lastUsed;
    Atomics.store(this.#used, IDX, this.#lastUsed);
    this.#layout.onWrite?.('device', 2, 2);
    if (!this.#layout.eventIdx) {
      return (Atomics.load(this.#avail, FLAGS) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    }
    return crossedEvent(Atomics.load(this.#avail, RING + this.#size), this.#lastUsed, before);
  }

  armNotify(): boolean {
    if (this.#layout.eventIdx) {
      const at = RING + 4 * this.#size;
      Atomics.store(this.#used, at, this.#lastAvail);
      this.#layout.onWrite?.('device', 2 * at, 2);
    } else {
      this.#setFlags(0);
    }
    return Atomics.load(this.#avail, IDX) !== this.#lastAvail;
  }

  disarmNotify(): void {
    // With EVENT_IDX an avail_event left behind already keeps the driver from kicking.
    if (!this.#layout.eventIdx) this.#setFlags(VIRTQ_USED_F_NO_NOTIFY);
  }

  close(): void {
    this.#views.close();
  }

  #setFlags(flags: number): void {
    Atomics.store(this.#used, FLAGS, flags);
    this.#layout.onWrite?.('device', 0, 2);
  }

  #collect(head: number, segments: Segment[]): void {
    let index = head;
    for (let rest = this.#size; rest > 0; rest--) {
      const at = 4 * index;
      const low = this.#desc[at] ?? 0;
      const high = this.#desc[at + 1] ?? 0;
      const lenBytes = this.#desc[at + 2] ?? 0;
      const tail = this.#desc[at + 3] ?? 0;
      const flags = tail & 0xffff;
      const gpa = guestAddress(low, high);
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        // virtio 1.3, 2.7.5.3.2: "zero or more normal chained descriptors followed by a single descriptor with
        // flags&VIRTQ_DESC_F_INDIRECT"
        if ((flags & VIRTQ_DESC_F_NEXT) !== 0) throw new DriverError('an indirect descriptor has a next');
        this.#collectIndirect(gpa, lenBytes, segments);
        return;
      }
      segments.push({ gpa, lenBytes, writable: (flags & VIRTQ_DESC_F_WRITE) !== 0 });
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) return;
      index = tail >>> 16;
      if (index >= this.#size) throw new DriverError(`next ${index} is beyond a queue of ${this.#size}`);
    }
    throw new DriverError('descriptor chain is longer than the queue, or loops');
  }

  #collectIndirect(gpa: number, lenBytes: number, segments: Segment[]): void {
    if (!this.#layout.indirect)
      throw new DriverError('an indirect descriptor came without VIRTIO_F_INDIRECT_DESC');
    const table = this.#indirect;
    const count = readIndirectTable(this.#layout.memory, gpa, lenBytes, this.#size, table);
    const view = new DataView(table.buffer);
    let index = 0;
    for (let rest = count; rest > 0; rest--) {
      const at = index * DESC_BYTES;
      const flags = view.getUint16(at + 12, true);
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0)
        throw new DriverError('an indirect table is inside an indirect table');
      segments.push({
        gpa: guestAddress(view.getUint32(at, true), view.getUint32(at + 4, true)),
        lenBytes: view.getUint32(at + 8, true),
        writable: (flags & VIRTQ_DESC_F_WRITE) !== 0,
      });
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) return;
      index = view.getUint16(at + 14, true);
      if (index >= count) throw new DriverError(`next ${index} is beyond an indirect table of ${count}`);
    }
    throw new DriverError('indirect descriptor chain loops');
  }
}
