// The device's side of both ring formats, as short as it can be: it copies every field it looks at, never suppresses
// a kick unless told to, and takes one chain at a time.
import type { GuestRam } from '../support/guest-ram.js';
import { needsEvent, type RingAreas } from '../support/guest-ring.js';

export interface NaiveChain {
  id: number;
  slots: number;
  buffers: { gpa: number; len: number; writable: boolean }[];
}

interface Entry {
  gpa: number;
  len: number;
  third: number;
  fourth: number;
}

/** A descriptor's fields; `third` and `fourth` are flags and next (split) or id and flags (packed). */
function entryAt(ram: GuestRam, tableGpa: number, index: number): Entry {
  const view = new DataView(ram.read(tableGpa + 16 * index, 16).buffer);
  return {
    gpa: Number(view.getBigUint64(0, true)),
    len: view.getUint32(8, true),
    third: view.getUint16(12, true),
    fourth: view.getUint16(14, true),
  };
}

function u16At(ram: GuestRam, gpa: number): number {
  return new DataView(ram.read(gpa, 2).buffer).getUint16(0, true);
}

function bytesOf(...halves: number[]): Uint8Array {
  return new Uint8Array(Uint16Array.from(halves).buffer);
}

export interface NaiveRing {
  pop(): NaiveChain | null;
  /** Returns a chain; true when the driver wants a call for it. */
  push(chain: NaiveChain, len: number): boolean;
  /** Asks for a kick at the next chain, or for none. */
  setKicks(wanted: boolean): void;
}

export class NaiveSplitRing implements NaiveRing {
  #last = 0;
  #used = 0;

  constructor(
    private readonly ram: GuestRam,
    private readonly areas: RingAreas,
    private readonly size: number,
    private readonly eventIdx: boolean,
  ) {
    this.#last = this.#used = u16At(ram, areas.deviceGpa + 2);
  }

  pop(): NaiveChain | null {
    const { ram, areas, size } = this;
    if (u16At(ram, areas.driverGpa + 2) === this.#last) return null;
    const id = u16At(ram, areas.driverGpa + 4 + 2 * (this.#last % size));
    this.#last = (this.#last + 1) & 0xffff;
    let table = areas.descriptorGpa;
    let entry = entryAt(ram, table, id);
    if ((entry.third & 4) !== 0) {
      table = entry.gpa;
      entry = entryAt(ram, table, 0);
    }
    const chain: NaiveChain = { id, slots: 0, buffers: [] };
    for (;;) {
      chain.buffers.push({ gpa: entry.gpa, len: entry.len, writable: (entry.third & 2) !== 0 });
      if ((entry.third & 1) === 0) return chain;
      entry = entryAt(ram, table, entry.fourth);
    }
  }

  push(chain: NaiveChain, len: number): boolean {
    const { ram, areas, size } = this;
    const entry = Uint32Array.of(chain.id, len);
    ram.write(areas.deviceGpa + 4 + 8 * (this.#used % size), new Uint8Array(entry.buffer));
    const old = this.#used;
    this.#used = (this.#used + 1) & 0xffff;
    ram.write(areas.deviceGpa + 2, bytesOf(this.#used));
    if (this.eventIdx) return needsEvent(u16At(ram, areas.driverGpa + 4 + 2 * size), this.#used, old);
    return (u16At(ram, areas.driverGpa) & 1) === 0;
  }

  setKicks(wanted: boolean): void {
    const { ram, areas, size } = this;
    const event = wanted ? this.#last : (this.#last - 1) & 0xffff;
    if (this.eventIdx) ram.write(areas.deviceGpa + 4 + 8 * size, bytesOf(event));
    else ram.write(areas.deviceGpa, bytesOf(wanted ? 0 : 1));
  }
}

export class NaivePackedRing implements NaiveRing {
  #next = 0;
  #nextWrap = true;
  #used = 0;
  #usedWrap = true;

  constructor(
    private readonly ram: GuestRam,
    private readonly areas: RingAreas,
    private readonly size: number,
    private readonly eventIdx: boolean,
  ) {}

  pop(): NaiveChain | null {
    const { ram, areas } = this;
    let entry = entryAt(ram, areas.descriptorGpa, this.#next);
    const isAvail = (entry.fourth & 0x80) !== 0;
    const isUsed = (entry.fourth & 0x8000) !== 0;
    if (isAvail !== this.#nextWrap || isUsed === this.#nextWrap) return null;
    const chain: NaiveChain = { id: entry.third, slots: 0, buffers: [] };
    for (;;) {
      chain.slots++;
      this.#next++;
      if (this.#next === this.size) {
        this.#next = 0;
        this.#nextWrap = !this.#nextWrap;
      }
      if ((entry.fourth & 4) !== 0) {
        for (let i = 0; i < entry.len / 16; i++) {
          const inner = entryAt(ram, entry.gpa, i);
          chain.buffers.push({ gpa: inner.gpa, len: inner.len, writable: (inner.fourth & 2) !== 0 });
        }
      } else chain.buffers.push({ gpa: entry.gpa, len: entry.len, writable: (entry.fourth & 2) !== 0 });
      if ((entry.fourth & 1) === 0) return chain;
      entry = entryAt(ram, areas.descriptorGpa, this.#next);
      chain.id = entry.third;
    }
  }

  push(chain: NaiveChain, len: number): boolean {
    const { ram, areas, size } = this;
    const at = areas.descriptorGpa + 16 * this.#used;
    ram.write(at + 8, new Uint8Array(Uint32Array.of(len).buffer));
    ram.write(at + 12, bytesOf(chain.id, this.#usedWrap ? 0x8080 : 0));
    const was = this.#used | (this.#usedWrap ? 0x8000 : 0);
    this.#used += chain.slots;
    if (this.#used >= size) {
      this.#used -= size;
      this.#usedWrap = !this.#usedWrap;
    }
    const flags = u16At(ram, areas.driverGpa + 2);
    // Chains here have one slot where events are tested, so the event is passed exactly when it is met.
    if (flags === 2) return this.eventIdx && u16At(ram, areas.driverGpa) === was;
    return flags === 0;
  }

  setKicks(wanted: boolean): void {
    const { ram, areas } = this;
    const here = this.#next | (this.#nextWrap ? 0x8000 : 0);
    if (this.eventIdx && wanted) ram.write(areas.deviceGpa, bytesOf(here, 2));
    else ram.write(areas.deviceGpa, bytesOf(0, wanted ? 0 : 1));
  }
}
