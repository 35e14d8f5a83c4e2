import { writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { setFileOffset } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';

// Written by hand from the comment on StateFile: a second reader of its layout.
const COMMIT = 64;
const SLOT = 128;
const SLOT_BYTES = 64;
const RECORDS = 4096;
const RECORD_BYTES = 128 * 1024;
/** Words of a slot. */
export const SLOT_FIELDS = { seq: 0, consumeBytes: 1, outEnd: 2, recordAt: 3, recordLength: 4 } as const;
const RECORD_CRC = 5;
const SLOT_CRC = 6;

/** The bytes of a state file, to be changed. */
export class StateImage {
  bytes: Uint8Array;
  offset: number;

  constructor(bytes: Uint8Array, offset: number) {
    this.bytes = bytes.slice();
    this.offset = offset;
  }

  get record(): string {
    const slot = this.#slot;
    const at = slot[SLOT_FIELDS.recordAt] ?? 0;
    return new TextDecoder().decode(this.bytes.subarray(at, at + (slot[SLOT_FIELDS.recordLength] ?? 0)));
  }

  /** With checksums that are right. */
  set record(text: string) {
    const record = new TextEncoder().encode(text).subarray(0, RECORD_BYTES);
    this.bytes.set(record, RECORDS);
    this.#slot[SLOT_FIELDS.recordAt] = RECORDS;
    this.#slot[SLOT_FIELDS.recordLength] = record.length;
    this.#slot[RECORD_CRC] = crc32(record);
    this.seal();
  }

  setField(field: keyof typeof SLOT_FIELDS, value: number): void {
    this.#slot[SLOT_FIELDS[field]] = value;
    this.seal();
  }

  field(field: keyof typeof SLOT_FIELDS): number {
    return this.#slot[SLOT_FIELDS[field]] ?? 0;
  }

  seal(): void {
    const slot = this.#slot;
    slot[SLOT_CRC] = crc32(new Uint8Array(slot.buffer, slot.byteOffset, 4 * SLOT_CRC));
  }

  /** As a file, whose owner the caller is. */
  open(): number {
    const fd = createMemfd('state', this.bytes.length);
    for (let at = 0; at < this.bytes.length;) at += writeSync(fd, this.bytes, at, this.bytes.length - at, at);
    setFileOffset(fd, this.offset);
    return fd;
  }

  get #slot(): Uint32Array {
    const which = (this.bytes[COMMIT] ?? 0) & 1;
    return new Uint32Array(this.bytes.buffer, SLOT + SLOT_BYTES * which, 7);
  }
}
