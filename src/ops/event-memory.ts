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
  /** The `seq` of the newest event; 0: there is none. */
  readonly newest: number;
  /** The records that were there when it was opened, oldest first. */
  readonly #records: readonly Found[];
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
    this.#records = this.#find();
    const last = this.#records.at(-1);
    this.newest = last?.seq ?? 0;
    this.#next = last === undefined ? HEAD_BYTES : last.at + sizeOf(last.lenBytes);
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

  /**
   * Reads the events that were there when it was opened, oldest first, without those that have made room for newer ones
   * since; and how many of them are none that this build knows. Guests wait for what is called before they are served, and
   * this takes longest.
   */
  recall(): { events: DaemonEvent[]; unknown: number } {
    const records = this.#records.filter((record) => this.#isWhole(record));
    const events = records.map((record) => this.#read(record)).filter((event) => event !== null);
    return { events, unknown: records.length - events.length };
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
    for (
      let word = this.#words.indexOf(MARK, HEAD_BYTES / 4);
      word >= 0;
      word = this.#words.indexOf(MARK, word + 1)
    ) {
      const at = word * 4;
      const [, lenBytes = 0, , seq = 0] = this.#words.subarray(word, word + 4);
      const record = { seq, at, lenBytes };
      if (at % UNIT !== 0 || !this.#isWhole(record)) continue;
      whole.set(seq, record);
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

  #isWhole({ seq, at, lenBytes }: Found): boolean {
    const start = at + RECORD_HEAD_BYTES;
    if (seq === 0 || lenBytes > EVENT_BYTES_MAX || start + lenBytes > FILE_BYTES) return false;
    const [mark, length, checksum, number] = this.#words.subarray(at / 4, start / 4);
    if (mark !== MARK || length !== lenBytes || number !== seq) return false;
    return checksumOf(seq, this.#bytes.subarray(start, start + lenBytes)) === checksum;
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

/** The memory that goes on, and why what a daemon before this one left does not: sentences. */
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
  return { memory: memory ?? EventMemory.create(), setAside };
}

/** What an event is called: its number, and the epoch that the number is of. */
export function numbered(epoch: string, seq: number): Pick<DaemonEvent, 'seq' | 'epoch' | 'id'> {
  return { seq, epoch, id: `${epoch}-${seq}` };
}

function lastTime(memory: EventMemory): string {
  return memory.recall().events.at(-1)?.time ?? '';
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
