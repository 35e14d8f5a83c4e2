// A driver's rings without its rules: what is written, and where, is the caller's business.
import type { GuestRam } from '../support/guest-ram.js';
import {
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_WRITE,
  DESCRIPTOR_BYTES,
  type ChainBuffer,
} from '../support/guest-ring.js';
import { concat, u32s, u64s } from '../support/wire.js';

const DESC_AVAIL = 0x80;
const DESC_USED = 0x8000;
/** Parts of one ring, as offsets from its first byte. */
const DRIVER_AT = 0x10000;
const DEVICE_AT = 0x18000;
const TABLES_AT = 0x1c000;
export const RING_BYTES = 0x20000;

export interface RawDescriptor {
  gpa: bigint;
  len: number;
  flags: number;
  /** Packed: the id. */
  next: number;
}

export class RingWriter {
  readonly gpa: number;
  readonly size: number;
  readonly packed: boolean;
  readonly ram: GuestRam;
  /** Split: the avail index; packed: slot and wrap counter. */
  index = 0;
  wrap = 1;
  #nextSlot = 0;

  constructor(ram: GuestRam, gpa: number, size: number, packed: boolean) {
    this.ram = ram;
    this.gpa = gpa;
    this.size = size;
    this.packed = packed;
    ram.write(gpa, new Uint8Array(RING_BYTES));
  }

  get driverGpa(): number {
    return this.gpa + DRIVER_AT;
  }

  get deviceGpa(): number {
    return this.gpa + DEVICE_AT;
  }

  /** Of a free indirect table of 32 entries. */
  tableGpa(n: number): number {
    return this.gpa + TABLES_AT + (n % 32) * 32 * DESCRIPTOR_BYTES;
  }

  /** The descriptors of one chain, as a driver would make them; indirect ones are written where they belong. */
  describe(buffers: readonly ChainBuffer[], indirect: boolean, id: number): RawDescriptor[] {
    const direct = buffers.map(({ gpa, len, writable }, n) => ({
      gpa: BigInt(gpa),
      len,
      flags: (writable === true ? DESC_WRITE : 0) | (n + 1 < buffers.length ? DESC_NEXT : 0),
      next: n + 1,
    }));
    if (!indirect) return direct;
    const table = direct.map((entry) =>
      this.packed ? { ...entry, flags: entry.flags & ~DESC_NEXT, next: 0 } : entry,
    );
    const gpa = this.tableGpa(id);
    this.ram.write(gpa, concat(...table.map((entry) => encode(entry, this.packed))));
    return [{ gpa: BigInt(gpa), len: table.length * DESCRIPTOR_BYTES, flags: DESC_INDIRECT, next: 0 }];
  }

  /** Writes a chain and makes it available, as one of `id`; `avail` tells what to make available instead. */
  offer(descriptors: readonly RawDescriptor[], id: number, publish = true): void {
    if (this.packed) this.#offerPacked(descriptors, id, publish);
    else this.#offerSplit(descriptors, publish);
  }

  writeAvailIndex(index: number): void {
    this.ram.write(this.driverGpa + 2, Uint8Array.of(index, index >>> 8));
  }

  writeAvailEntry(slot: number, head: number): void {
    this.ram.write(this.driverGpa + 4 + 2 * slot, Uint8Array.of(head, head >>> 8));
  }

  writeDescriptor(slot: number, descriptor: RawDescriptor): void {
    this.ram.write(this.gpa + DESCRIPTOR_BYTES * slot, encode(descriptor, this.packed));
  }

  readUsedIndex(): number {
    const [low = 0, high = 0] = this.ram.read(this.deviceGpa + 2, 2);
    return low | (high << 8);
  }

  readUsedId(index: number): number {
    const bytes = this.ram.read(this.deviceGpa + 4 + 8 * (index % this.size), 4);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  #offerSplit(descriptors: readonly RawDescriptor[], publish: boolean): void {
    const slots = descriptors.map(() => this.#nextSlot++ % this.size);
    for (const [n, descriptor] of descriptors.entries()) {
      const next = slots[descriptor.next] ?? descriptor.next;
      this.writeDescriptor(slots[n] ?? 0, { ...descriptor, next });
    }
    this.writeAvailEntry(this.index % this.size, slots[0] ?? 0);
    this.index = (this.index + 1) & 0xffff;
    if (publish) this.writeAvailIndex(this.index);
  }

  #offerPacked(descriptors: readonly RawDescriptor[], id: number, publish: boolean): void {
    const written: [number, RawDescriptor][] = [];
    for (const descriptor of descriptors) {
      const flags = descriptor.flags | (this.wrap === 1 ? DESC_AVAIL : DESC_USED);
      written.push([this.index, { ...descriptor, flags, next: id }]);
      if (++this.index < this.size) continue;
      this.index = 0;
      this.wrap ^= 1;
    }
    // The first one is what makes the others visible.
    for (const [slot, descriptor] of publish ? written.reverse() : written.slice(1)) {
      this.writeDescriptor(slot, descriptor);
    }
  }
}

export function encode({ gpa, len, flags, next }: RawDescriptor, packed: boolean): Uint8Array {
  const [low, high] = packed ? [next, flags] : [flags, next];
  return concat(u64s(gpa), u32s(len, ((low & 0xffff) | (high << 16)) >>> 0));
}
