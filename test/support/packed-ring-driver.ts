// The driver's side of a packed ring, with the same interface as the split one.
import {
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_WRITE,
  DESCRIPTOR_BYTES,
  GuestRing,
  alignUp,
  needsEvent,
  type AddOptions,
  type ChainBuffer,
  type RingAreas,
  type Used,
} from './guest-ring.js';
import type { GuestRam } from './guest-ram.js';
import type { RingOptions } from './ring-driver.js';

const DESC_AVAIL = 0x80;
const DESC_USED = 0x8000;
const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;
const WRAP = 0x8000;

/** A descriptor of the packed format. */
export interface PackedDescriptor {
  gpa: number | bigint;
  len: number;
  id: number;
  flags: number;
}

interface Offer {
  /** Ring slots the chain takes: one when it is indirect. */
  slots: number;
}

export class PackedRingDriver extends GuestRing {
  override readonly size: number;
  override readonly areas: RingAreas;
  override readonly endGpa: number;
  /** Both indexes 0, both wrap counters 1. */
  override readonly initialBase = 0x80008000 >>> 0;

  readonly #ram: GuestRam;
  readonly #release: () => void;
  readonly #view: DataView;
  readonly #words: Uint16Array;
  readonly #driverAt: number;
  readonly #deviceAt: number;
  readonly #indirectAt: number;
  readonly #indirectEntries: number;
  readonly #eventIdx: boolean;
  readonly #freeIds: number[];
  readonly #offered = new Map<number, Offer>();
  #freeSlots: number;
  #next = 0;
  #nextWrap = 1;
  #used = 0;
  #usedWrap = 1;
  #addedSinceKick = 0;
  /** The first descriptors of chains not yet published: their flags are written last, newest chain first. */
  #unpublished: { slot: number; flags: number }[] = [];

  constructor(ram: GuestRam, options: RingOptions) {
    super();
    const { size, gpa } = options;
    this.#ram = ram;
    this.size = size;
    this.#eventIdx = options.eventIdx ?? false;
    this.#indirectEntries = options.indirectEntries ?? 4;
    this.#driverAt = DESCRIPTOR_BYTES * size;
    this.#deviceAt = this.#driverAt + 4;
    this.#indirectAt = alignUp(this.#deviceAt + 4, DESCRIPTOR_BYTES);
    const lenBytes = this.#indirectAt + size * this.#indirectEntries * DESCRIPTOR_BYTES;
    this.areas = { descriptorGpa: gpa, driverGpa: gpa + this.#driverAt, deviceGpa: gpa + this.#deviceAt };
    this.endGpa = gpa + lenBytes;
    ram.write(gpa, new Uint8Array(lenBytes));
    const { buffer, release } = ram.view(gpa, this.#indirectAt);
    this.#release = release;
    this.#view = new DataView(buffer);
    this.#words = new Uint16Array(buffer);
    this.#freeSlots = size;
    this.#freeIds = Array.from({ length: size }, (_, i) => i);
  }

  override add(chain: readonly ChainBuffer[], options: AddOptions = {}): number {
    const indirect = options.indirect === true;
    const slots = indirect ? 1 : chain.length;
    if (chain.length === 0) throw new Error('a chain has at least one buffer');
    if (slots > this.#freeSlots) throw new Error(`the ring has only ${this.#freeSlots} free descriptors`);
    const id = this.#freeIds.shift();
    if (id === undefined) throw new Error('the ring has no free buffer id');
    const buffers = indirect
      ? [this.#indirectTable(id, chain)]
      : chain.map((buffer) => ({ ...buffer, flags: 0 }));
    const first = { slot: this.#next, flags: 0 };
    buffers.forEach((buffer, i) => {
      const flags =
        buffer.flags |
        (buffer.writable === true ? DESC_WRITE : 0) |
        (i + 1 < slots ? DESC_NEXT : 0) |
        (this.#nextWrap === 1 ? DESC_AVAIL : DESC_USED);
      const slot = this.#next;
      if (i === 0) first.flags = flags;
      // The first descriptor keeps its old flags until the chain is published.
      const written = i === 0 ? this.#readFlags(slot) : flags;
      this.writeDescriptor(slot, { gpa: buffer.gpa, len: buffer.len, id, flags: written });
      this.#advanceNext();
    });
    this.#freeSlots -= slots;
    this.#addedSinceKick += slots;
    this.#offered.set(id, { slots });
    this.#unpublished.push(first);
    if (options.publish !== false) this.publish();
    return id;
  }

  override publish(): void {
    for (const { slot, flags } of this.#unpublished.reverse()) this.#writeFlags(slot, flags);
    this.#unpublished = [];
  }

  override collectUsed(): Used[] {
    const used: Used[] = [];
    for (;;) {
      const flags = this.#readFlags(this.#used);
      const avail = (flags & DESC_AVAIL) !== 0 ? 1 : 0;
      const isUsed = (flags & DESC_USED) !== 0 ? 1 : 0;
      if (avail !== isUsed || isUsed !== this.#usedWrap) return used;
      const at = DESCRIPTOR_BYTES * this.#used;
      const id = this.#view.getUint16(at + 12, true);
      const offer = this.#offered.get(id);
      if (offer === undefined) throw new Error(`the device returned buffer ${id}, which it does not have`);
      this.#offered.delete(id);
      if (id < this.size) this.#freeIds.push(id);
      this.#freeSlots += offer.slots;
      used.push({ head: id, len: this.#view.getUint32(at + 8, true) });
      this.#used += offer.slots;
      if (this.#used >= this.size) {
        this.#used -= this.size;
        this.#usedWrap ^= 1;
      }
    }
  }

  override get outstanding(): number {
    return this.#offered.size;
  }

  override enableCalls(): void {
    if (this.#eventIdx) this.writeDriverEvent(this.#used | (this.#usedWrap === 1 ? WRAP : 0), EVENT_DESC);
    else this.writeDriverEvent(0, EVENT_ENABLE);
  }

  override disableCalls(): void {
    this.writeDriverEvent(0, EVENT_DISABLE);
  }

  /** Writes a descriptor, its flags last, wherever the driver stands. */
  writeDescriptor(slot: number, descriptor: PackedDescriptor): void {
    const at = DESCRIPTOR_BYTES * slot;
    this.#view.setBigUint64(at, BigInt(descriptor.gpa), true);
    this.#view.setUint32(at + 8, descriptor.len, true);
    this.#view.setUint16(at + 12, descriptor.id, true);
    this.#writeFlags(slot, descriptor.flags);
  }

  /**
   * Offers hand-made descriptors in the next slots, as one publication; of the flags only NEXT, WRITE and INDIRECT
   * are the test's. The chain counts as outstanding under `id`.
   */
  offerDescriptors(id: number, descriptors: readonly PackedDescriptor[]): void {
    const written = descriptors.map((descriptor) => {
      const slot = this.#next;
      const flags = descriptor.flags | (this.#nextWrap === 1 ? DESC_AVAIL : DESC_USED);
      this.#advanceNext();
      return { slot, descriptor: { ...descriptor, flags } };
    });
    for (const { slot, descriptor } of written.reverse()) this.writeDescriptor(slot, descriptor);
    const position = this.#freeIds.indexOf(id);
    if (position >= 0) this.#freeIds.splice(position, 1);
    this.#offered.set(id, { slots: descriptors.length });
    this.#freeSlots -= descriptors.length;
    this.#addedSinceKick += descriptors.length;
  }

  /** The driver event suppression area: when the device shall call. */
  writeDriverEvent(offsetAndWrap: number, flags: number): void {
    Atomics.store(this.#words, this.#driverAt / 2, offsetAndWrap);
    Atomics.store(this.#words, this.#driverAt / 2 + 1, flags);
  }

  /** The device event suppression area: when the driver shall kick. */
  readDeviceEvent(): { offsetAndWrap: number; flags: number } {
    return {
      offsetAndWrap: Atomics.load(this.#words, this.#deviceAt / 2),
      flags: Atomics.load(this.#words, this.#deviceAt / 2 + 1),
    };
  }

  protected override deviceWantsKick(): boolean {
    const old = this.#next - this.#addedSinceKick;
    this.#addedSinceKick = 0;
    const { offsetAndWrap, flags } = this.readDeviceEvent();
    if (flags !== EVENT_DESC) return flags !== EVENT_DISABLE;
    const wrap = (offsetAndWrap & WRAP) !== 0 ? 1 : 0;
    const event = (offsetAndWrap & ~WRAP) - (wrap === this.#nextWrap ? 0 : this.size);
    return needsEvent(event, this.#next, old);
  }

  protected override releaseView(): void {
    this.#release();
  }

  #readFlags(slot: number): number {
    return Atomics.load(this.#words, (DESCRIPTOR_BYTES * slot + 14) / 2);
  }

  #writeFlags(slot: number, flags: number): void {
    Atomics.store(this.#words, (DESCRIPTOR_BYTES * slot + 14) / 2, flags);
  }

  #advanceNext(): void {
    this.#next++;
    if (this.#next === this.size) {
      this.#next = 0;
      this.#nextWrap ^= 1;
    }
  }

  /** Writes the table; in it the specification reserves every flag but WRITE, and the order is the chain's. */
  #indirectTable(id: number, chain: readonly ChainBuffer[]): ChainBuffer & { flags: number } {
    if (chain.length > this.#indirectEntries) {
      throw new Error(`an indirect table here holds ${this.#indirectEntries} buffers`);
    }
    const table = new DataView(new ArrayBuffer(DESCRIPTOR_BYTES * chain.length));
    chain.forEach((buffer, i) => {
      table.setBigUint64(DESCRIPTOR_BYTES * i, BigInt(buffer.gpa), true);
      table.setUint32(DESCRIPTOR_BYTES * i + 8, buffer.len, true);
      table.setUint16(DESCRIPTOR_BYTES * i + 14, buffer.writable === true ? DESC_WRITE : 0, true);
    });
    const gpa = this.areas.descriptorGpa + this.#indirectAt + id * this.#indirectEntries * DESCRIPTOR_BYTES;
    this.#ram.write(gpa, new Uint8Array(table.buffer));
    return { gpa, len: table.byteLength, flags: DESC_INDIRECT };
  }
}
