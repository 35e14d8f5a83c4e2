// The driver's side of a split ring. It keeps the driver's rules by itself; the raw accessors are for tests that
// break them.
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

const AVAIL_F_NO_INTERRUPT = 1;
const USED_F_NO_NOTIFY = 1;

export interface RingOptions {
  /** Entries; a power of two. */
  size: number;
  /** Where the ring starts, a multiple of 4096. */
  gpa: number;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  eventIdx?: boolean;
  /** The most buffers a chain may have in an indirect table (default 4). */
  indirectEntries?: number;
}

/** A descriptor as it lies in the ring or in an indirect table. */
export interface Descriptor {
  gpa: number | bigint;
  len: number;
  flags: number;
  next: number;
}

export class RingDriver extends GuestRing {
  override readonly size: number;
  override readonly areas: RingAreas;
  override readonly endGpa: number;
  override initialBase = 0;

  readonly #ram: GuestRam;
  readonly #release: () => void;
  readonly #view: DataView;
  readonly #words: Uint16Array;
  readonly #availAt: number;
  readonly #usedAt: number;
  readonly #indirectAt: number;
  readonly #indirectEntries: number;
  readonly #eventIdx: boolean;
  readonly #free: number[];
  /** Descriptors each offered head occupies, once for each time it was offered. */
  readonly #offered = new Map<number, number[][]>();
  #availIndex = 0;
  #publishedIndex = 0;
  #kickedIndex = 0;
  #usedIndex = 0;

  constructor(ram: GuestRam, options: RingOptions) {
    super();
    const { size, gpa } = options;
    this.#ram = ram;
    this.size = size;
    this.#eventIdx = options.eventIdx ?? false;
    this.#indirectEntries = options.indirectEntries ?? 4;
    this.#availAt = DESCRIPTOR_BYTES * size;
    this.#usedAt = alignUp(this.#availAt + 6 + 2 * size, 4);
    this.#indirectAt = alignUp(this.#usedAt + 6 + 8 * size, DESCRIPTOR_BYTES);
    const lenBytes = this.#indirectAt + size * this.#indirectEntries * DESCRIPTOR_BYTES;
    this.areas = { descriptorGpa: gpa, driverGpa: gpa + this.#availAt, deviceGpa: gpa + this.#usedAt };
    this.endGpa = gpa + lenBytes;
    ram.write(gpa, new Uint8Array(lenBytes));
    const { buffer, release } = ram.view(gpa, this.#indirectAt);
    this.#release = release;
    this.#view = new DataView(buffer);
    this.#words = new Uint16Array(buffer);
    this.#free = Array.from({ length: size }, (_, i) => i);
  }

  override add(chain: readonly ChainBuffer[], options: AddOptions = {}): number {
    const head = options.indirect === true ? this.#addIndirect(chain) : this.#addDirect(chain);
    this.#putAvailable(head);
    if (options.publish !== false) this.publish();
    return head;
  }

  override publish(): void {
    this.#publishedIndex = this.#availIndex;
    this.writeAvailIndex(this.#availIndex);
  }

  override collectUsed(): Used[] {
    const news = (this.readUsedIndex() - this.#usedIndex) & 0xffff;
    if (news > this.size) throw new Error(`used->idx ran ${news} ahead in a ring of ${this.size}`);
    const used: Used[] = [];
    for (let i = 0; i < news; i++) {
      const entry = this.readUsed(this.#usedIndex % this.size);
      const descriptors = this.#offered.get(entry.head)?.pop();
      if (descriptors === undefined)
        throw new Error(`the device returned head ${entry.head}, which it does not have`);
      this.#free.push(...descriptors);
      this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
      used.push(entry);
    }
    return used;
  }

  override get outstanding(): number {
    let count = 0;
    for (const times of this.#offered.values()) count += times.length;
    return count;
  }

  override enableCalls(): void {
    this.writeAvailFlags(0);
    if (this.#eventIdx) this.writeUsedEvent(this.#usedIndex);
  }

  override disableCalls(): void {
    this.writeAvailFlags(AVAIL_F_NO_INTERRUPT);
  }

  /** Offers a head of the test's choosing, whatever its descriptors say, again if need be, and publishes it. */
  offerHead(head: number): void {
    this.#note(head, []);
    this.#putAvailable(head);
    this.publish();
  }

  writeDescriptor(index: number, descriptor: Descriptor): void {
    putDescriptor(this.#view, index, descriptor);
  }

  writeAvailFlags(flags: number): void {
    Atomics.store(this.#words, this.#availAt / 2, flags);
  }

  writeAvailIndex(index: number): void {
    Atomics.store(this.#words, this.#availAt / 2 + 1, index);
  }

  writeAvailEntry(slot: number, head: number): void {
    this.#view.setUint16(this.#availAt + 4 + 2 * slot, head, true);
  }

  /** The driver's field after the available ring: call when used->idx passes this. */
  writeUsedEvent(index: number): void {
    Atomics.store(this.#words, this.#availAt / 2 + 2 + this.size, index);
  }

  readUsedFlags(): number {
    return Atomics.load(this.#words, this.#usedAt / 2);
  }

  readUsedIndex(): number {
    return Atomics.load(this.#words, this.#usedAt / 2 + 1);
  }

  readUsed(slot: number): Used {
    const at = this.#usedAt + 4 + 8 * slot;
    return { head: this.#view.getUint32(at, true), len: this.#view.getUint32(at + 4, true) };
  }

  /** The device's field after the used ring: kick when avail->idx passes this. */
  readAvailEvent(): number {
    return Atomics.load(this.#words, (this.#usedAt + 4 + 8 * this.size) / 2);
  }

  /** Sets the ring's idea of both indexes and the fields in memory, to start near the wrap-around. */
  startAt(index: number): void {
    this.initialBase = index;
    this.#availIndex = this.#publishedIndex = this.#kickedIndex = this.#usedIndex = index;
    this.writeAvailIndex(index);
    Atomics.store(this.#words, this.#usedAt / 2 + 1, index);
  }

  protected override deviceWantsKick(): boolean {
    const old = this.#kickedIndex;
    this.#kickedIndex = this.#publishedIndex;
    if (this.#eventIdx) return needsEvent(this.readAvailEvent(), this.#publishedIndex, old);
    return (this.readUsedFlags() & USED_F_NO_NOTIFY) === 0;
  }

  protected override releaseView(): void {
    this.#release();
  }

  #takeFree(): number {
    const index = this.#free.shift();
    if (index === undefined) throw new Error('the ring is full');
    return index;
  }

  #note(head: number, descriptors: number[]): void {
    this.#offered.set(head, [descriptors, ...(this.#offered.get(head) ?? [])]);
  }

  #putAvailable(head: number): void {
    this.writeAvailEntry(this.#availIndex % this.size, head);
    this.#availIndex = (this.#availIndex + 1) & 0xffff;
  }

  #addDirect(chain: readonly ChainBuffer[]): number {
    if (chain.length > this.#free.length)
      throw new Error(`the ring has only ${this.#free.length} free descriptors`);
    const indexes = chain.map(() => this.#takeFree());
    const [head] = indexes;
    if (head === undefined) throw new Error('a chain has at least one buffer');
    chain.forEach((buffer, i) => this.writeDescriptor(indexes[i] ?? 0, describe(buffer, indexes[i + 1])));
    this.#note(head, indexes);
    return head;
  }

  #addIndirect(chain: readonly ChainBuffer[]): number {
    if (chain.length > this.#indirectEntries) {
      throw new Error(`an indirect table here holds ${this.#indirectEntries} buffers`);
    }
    const head = this.#takeFree();
    const table = new DataView(new ArrayBuffer(DESCRIPTOR_BYTES * chain.length));
    chain.forEach((buffer, i) =>
      putDescriptor(table, i, describe(buffer, i + 1 < chain.length ? i + 1 : undefined)),
    );
    const tableGpa =
      this.areas.descriptorGpa + this.#indirectAt + head * this.#indirectEntries * DESCRIPTOR_BYTES;
    this.#ram.write(tableGpa, new Uint8Array(table.buffer));
    this.writeDescriptor(head, { gpa: tableGpa, len: table.byteLength, flags: DESC_INDIRECT, next: 0 });
    this.#note(head, [head]);
    return head;
  }
}

function describe(buffer: ChainBuffer, next: number | undefined): Descriptor {
  const flags = (buffer.writable === true ? DESC_WRITE : 0) | (next === undefined ? 0 : DESC_NEXT);
  return { gpa: buffer.gpa, len: buffer.len, flags, next: next ?? 0 };
}

function putDescriptor(view: DataView, index: number, descriptor: Descriptor): void {
  const at = DESCRIPTOR_BYTES * index;
  view.setBigUint64(at, BigInt(descriptor.gpa), true);
  view.setUint32(at + 8, descriptor.len, true);
  view.setUint16(at + 12, descriptor.flags, true);
  view.setUint16(at + 14, descriptor.next, true);
}
