/**
 * The events that are remembered, in a file in memory that outlives the process. The process may end between any two
 * instructions: each record carries a checksum, so that one which was being written, or is overwritten in part, is not
 * taken for one.
 *
 *      0  magic, layout version, size of the file, checksum of these and the epoch; the epoch
 *     64  records, the newest behind the one before it; at the end of the file the next one is the first again
 *
 * A record begins at a multiple of 8 bytes with MARK, which UTF-8 cannot contain: no text in an event can be taken for
 * a record.
 */
import { fstatSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { Check } from 'typebox/schema';
import { SCHEMAS, type DaemonEvent } from '../../protocol/control/schema.js';
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import { Mapping } from '../os/mapping.js';
import { createMemfd } from '../os/memfd.js';

/** Events that are remembered, where they fit. */
export const EVENTS_KEPT = 1000;

const FILE_BYTES = 1024 * 1024;
const MAGIC = 0x7374_7665; // "evts"
const LAYOUT_VERSION = 1;
const HEAD_BYTES = 64;
const EPOCH_AT = 16;
const EPOCH_BYTES = 8;

const MARK = 0xfffe_c0ff;
const RECORD_HEAD_BYTES = 16;
const UNIT = 8;
/** Words of a record's head. */
const LENGTH = 1;
const CHECKSUM = 2;
const SEQ = 3;

/** Of an event as JSON; longer ones are cut before they are remembered. */
export const EVENT_BYTES_MAX = 16 * 1024;

/** A new name for a row of numbers: that of events which no daemon before this one has numbered. */
export function newEpoch(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(EPOCH_BYTES / 2))).toString('hex');
}

interface Found {
  readonly seq: number;
  readonly at: number;
  readonly lenBytes: number;
}

export class EventMemory {
  readonly fd: number;
  readonly epoch: string;
  /** What was remembered when it was opened, oldest first. */
  readonly events: readonly DaemonEvent[];
  /** The `seq` of the newest event; 0: there is none. */
  readonly newest: number;
  /** How many events of it are none that this build knows. */
  readonly unknown: number;
  readonly #mapping: Mapping;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  #next: number;

  private constructor(fd: number, mapping: Mapping, epoch: string) {
    this.fd = fd;
    this.#mapping = mapping;
    this.epoch = epoch;
    const view = mapping.view(0, FILE_BYTES);
    this.#bytes = new Uint8Array(view);
    this.#words = new Uint32Array(view);
    const records = this.#find();
    const last = records.at(-1);
    this.newest = last?.seq ?? 0;
    this.#next = last === undefined ? HEAD_BYTES : last.at + sizeOf(last.lenBytes);
    const events = records.map((record) => this.#read(record)).filter((event) => event !== null);
    this.events = events;
    this.unknown = records.length - events.length;
  }

  /** An empty one. Throws SystemError. */
  static create(): EventMemory {
    const fd = createMemfd('balloond-events', FILE_BYTES);
    try {
      const mapping = Mapping.map(fd, 0, FILE_BYTES);
      const head = new Uint8Array(HEAD_BYTES);
      const epoch = newEpoch();
      head.set(new TextEncoder().encode(epoch), EPOCH_AT);
      const words = new Uint32Array(head.buffer, 0, 4);
      words.set([MAGIC, LAYOUT_VERSION, FILE_BYTES]);
      words[3] = headChecksum(head);
      mapping.write(0, head, 0, HEAD_BYTES);
      return new EventMemory(fd, mapping, epoch);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /** Goes on with one that a process before this one left; a string says why that cannot be. `fd` stays the caller's. */
  static open(fd: number): EventMemory | string {
    const { size } = fstatSync(fd);
    if (size !== FILE_BYTES) return `it has ${size} bytes`;
    let mapping: Mapping;
    try {
      mapping = Mapping.map(fd, 0, FILE_BYTES);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      return error.message;
    }
    const head = new Uint8Array(HEAD_BYTES);
    mapping.read(0, head, 0, HEAD_BYTES);
    const [magic, layout, lenBytes, checksum] = new Uint32Array(head.buffer, 0, 4);
    const epoch = new TextDecoder('latin1').decode(head.subarray(EPOCH_AT, EPOCH_AT + EPOCH_BYTES));
    let wrong: string | null = null;
    if (magic !== MAGIC) wrong = 'it is no memory of events';
    else if (layout !== LAYOUT_VERSION) {
      wrong = `another balloond wrote it in layout ${layout ?? 0}, and this one reads ${LAYOUT_VERSION}`;
    } else if (lenBytes !== FILE_BYTES || checksum !== headChecksum(head) || !/^[0-9a-f]+$/.test(epoch)) {
      wrong = 'its head is damaged';
    }
    if (wrong === null) return new EventMemory(fd, mapping, epoch);
    mapping.close();
    return wrong;
  }

  /** Remembers an event of at most EVENT_BYTES_MAX bytes of JSON, and forgets the oldest ones where it needs their room. */
  add(seq: number, json: string): void {
    const text = new TextEncoder().encode(json);
    const size = sizeOf(text.length);
    if (this.#next + size > FILE_BYTES) this.#next = HEAD_BYTES;
    const first = this.#next / 4;
    const head = this.#words.subarray(first, first + RECORD_HEAD_BYTES / 4);
    head[0] = 0;
    head[LENGTH] = text.length;
    head[SEQ] = seq;
    head[CHECKSUM] = checksumOf(seq, text);
    this.#bytes.set(text, this.#next + RECORD_HEAD_BYTES);
    // Last, although the checksum would be enough.
    Atomics.store(head, 0, MARK);
    this.#next += size;
  }

  close(): void {
    this.#mapping.close();
    closeFd(this.fd);
  }

  /** The newest ones whose numbers have no gap: what is left of a round before may lie behind them. */
  #find(): Found[] {
    const whole = new Map<number, Found>();
    let newest = 0;
    for (let at = HEAD_BYTES; at + RECORD_HEAD_BYTES <= FILE_BYTES; at += UNIT) {
      if (this.#words[at / 4] !== MARK) continue;
      const [, lenBytes = 0, checksum = 0, seq = 0] = this.#words.subarray(at / 4, at / 4 + 4);
      const start = at + RECORD_HEAD_BYTES;
      if (lenBytes > EVENT_BYTES_MAX || start + lenBytes > FILE_BYTES || seq === 0) continue;
      if (checksumOf(seq, this.#bytes.subarray(start, start + lenBytes)) !== checksum) continue;
      whole.set(seq, { seq, at, lenBytes });
      newest = Math.max(newest, seq);
    }
    const records: Found[] = [];
    for (let seq = newest; seq > newest - EVENTS_KEPT; seq--) {
      const record = whole.get(seq);
      if (record === undefined) break;
      records.push(record);
    }
    return records.reverse();
  }

  #read({ seq, at, lenBytes }: Found): DaemonEvent | null {
    const start = at + RECORD_HEAD_BYTES;
    try {
      const bytes = this.#bytes.subarray(start, start + lenBytes);
      const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
      const said = JSON.parse(text) as object;
      const event: unknown = { ...said, ...numbered(this.epoch, seq) };
      return Check(SCHEMAS.Event, event) ? event : null;
    } catch {
      return null;
    }
  }
}

/** The memory that goes on, and why what a daemon before this one left does not, or not all of it: sentences. */
interface HandedOver {
  readonly memory: EventMemory;
  readonly setAside: readonly string[];
}

/** Goes on with what is in one of these files, which it closes else. Throws SystemError when it can have no file at all. */
export function takeOverEvents(files: readonly number[]): HandedOver {
  const setAside: string[] = [];
  let memory: EventMemory | null = null;
  for (const fd of files) {
    const opened = EventMemory.open(fd);
    if (typeof opened === 'string') {
      setAside.push(`the events that the daemon before this one remembered cannot be read (${opened})`);
      closeFd(fd);
    } else if (memory === null) memory = opened;
    // Two are left when the daemon before this one ended while it put one in the place of the other.
    else if (lastTime(opened) > lastTime(memory)) {
      memory.close();
      memory = opened;
    } else opened.close();
  }
  if (memory !== null && memory.unknown > 0) {
    setAside.push(`of the events that are remembered, this balloond cannot read ${memory.unknown}`);
  }
  return { memory: memory ?? EventMemory.create(), setAside };
}

/** What an event is called: its number, and the epoch that the number is of. */
export function numbered(epoch: string, seq: number): Pick<DaemonEvent, 'seq' | 'epoch' | 'id'> {
  return { seq, epoch, id: `${epoch}-${seq}` };
}

function lastTime({ events }: EventMemory): string {
  return events.at(-1)?.time ?? '';
}

function sizeOf(lenBytes: number): number {
  return Math.ceil((RECORD_HEAD_BYTES + lenBytes) / UNIT) * UNIT;
}

function checksumOf(seq: number, text: Uint8Array): number {
  return crc32(text, seq);
}

function headChecksum(head: Uint8Array): number {
  return crc32(head.subarray(EPOCH_AT), crc32(head.subarray(0, 12)));
}
