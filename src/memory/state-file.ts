import { fstatSync, ftruncateSync, readSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { HEADER_BYTES, MAX_PAYLOAD_BYTES } from '../../protocol/vhost-user/header.js';
import { closeFd, fileOffset, punchHole, setFileOffset } from '../os/fd.js';
import { Mapping } from '../os/mapping.js';
import { createMemfd } from '../os/memfd.js';

/** A state file that cannot be gone on with; the message says why. */
export class StateError extends Error {
  override readonly name = 'StateError';
}

const MAGIC = 0x6e6c6162; // "baln"
/** Of the layout below. That of the record is its owner's business. */
const LAYOUT_VERSION = 1;

const COMMIT = 64;
const SLOT = 128;
const SLOT_BYTES = 64;
const CONSUMED = 256;
const WORDS = 320;
const TOTALS = 384;
const RINGS = 512;
const RECORDS = 4096;
const RECORD_BYTES = 128 * 1024;
const OUTBOX = RECORDS + 2 * RECORD_BYTES;
const OUTBOX_BYTES = 64 * 1024;
const HEAD_BYTES = OUTBOX + OUTBOX_BYTES;
/** What is in use behind the head is a multiple of it. */
const UNIT = 4096;

/** No message is longer; of messages that were acted upon, no more are left in their socket. */
const MOST_MESSAGE_BYTES = HEADER_BYTES + MAX_PAYLOAD_BYTES;

/** Words of a slot. */
const SEQ = 0;
const CONSUME_BYTES = 1;
const OUT_END = 2;
const RECORD_AT = 3;
const RECORD_LENGTH = 4;
const RECORD_CRC = 5;
const SLOT_CRC = 6;
const SLOT_WORDS = 7;

/** Part of the file that somebody keeps bits in. */
export interface Area {
  readonly offset: number;
  readonly lenBytes: number;
}

/**
 * What has to be known of one VM to go on serving it after this process is gone, in a memfd that outlives it: a
 * record, replies on their way, counters, and areas for bitmaps.
 *
 * The process may end between any two instructions. What it wrote before is there, what it had yet to write is not:
 * so the record changes by one store of COMMIT, after everything it stands for was written to the slot not in use.
 * That message was answered is one fact with what it changed: commit() names the bytes of the messages that are in their
 * socket and were acted upon, and of the reply. What happens next (the messages are taken, the reply goes out) the kernel
 * counts by itself: in the socket's SO_PEEK_OFF, which begins at takes(), and in the file's offset.
 *
 *      0  magic, layout version                        384  totals: 8 doubles
 *     64  COMMIT: which slot counts                    512  rings: two words each
 *    128  two slots                                   4096  two records
 *    256  last commit taken; last begun, from where      …  replies
 *    320  words: 16 of 32 bits                           …  areas
 */
export class StateFile {
  readonly fd: number;
  /** Small facts that change by one store each. */
  words: Uint32Array<ArrayBuffer>;
  totals: Float64Array;
  readonly rings: Uint32Array;
  readonly #mapping: Mapping;
  readonly #head: Uint8Array;
  readonly #commit: Int32Array;
  /** SEQ of the last commit whose messages were taken. SEQ of the last of which that was begun, and SO_PEEK_OFF before. */
  readonly #consumed: Int32Array;
  readonly #slots: readonly [Uint32Array, Uint32Array];
  readonly #areas: Area[] = [];
  /** Of the next commit, where it is not the last one's. */
  #staged: { at: number; length: number; crc: number } | null = null;
  /** Of the file: the first byte that was not sent. */
  #offset = OUTBOX;

  private constructor(fd: number, mapping: Mapping) {
    this.fd = fd;
    this.#mapping = mapping;
    const head = mapping.view(0, HEAD_BYTES);
    this.#head = new Uint8Array(head);
    this.#commit = new Int32Array(head, COMMIT, 1);
    this.#consumed = new Int32Array(head, CONSUMED, 3);
    this.#slots = [
      new Uint32Array(head, SLOT, SLOT_WORDS),
      new Uint32Array(head, SLOT + SLOT_BYTES, SLOT_WORDS),
    ];
    this.words = new Uint32Array(head, WORDS, 16);
    this.totals = new Float64Array(head, TOTALS, 8);
    this.rings = new Uint32Array(head, RINGS, 128);
  }

  static create(): StateFile {
    const fd = createMemfd('balloond-state', HEAD_BYTES);
    try {
      const file = new StateFile(fd, Mapping.map(fd, 0, HEAD_BYTES));
      const header = new Uint32Array(file.#head.buffer, 0, 2);
      header[0] = MAGIC;
      header[1] = LAYOUT_VERSION;
      setFileOffset(fd, OUTBOX);
      file.commit(0, null);
      Atomics.store(file.#consumed, 0, 1);
      return file;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /** Takes `fd` over; when it throws StateError or SystemError, the fd is still the caller's. */
  static open(fd: number): StateFile {
    const { size } = fstatSync(fd);
    if (size < HEAD_BYTES) throw new StateError(`a state file of ${size} bytes`);
    const file = new StateFile(fd, Mapping.map(fd, 0, HEAD_BYTES));
    try {
      file.#check();
    } catch (error) {
      file.#mapping.close();
      throw error;
    }
    return file;
  }

  /** What stage() was given before the last commit, or an empty string. */
  record(): string {
    const slot = this.#slot;
    const at = slot[RECORD_AT] ?? 0;
    return new TextDecoder().decode(this.#head.slice(at, at + (slot[RECORD_LENGTH] ?? 0)));
  }

  /** The next commit is to stand for `record`. Throws StateError when that is too long. */
  stage(record: string): void {
    const at = this.#slot[RECORD_AT] === RECORDS ? RECORDS + RECORD_BYTES : RECORDS;
    const area = this.#head.subarray(at, at + RECORD_BYTES);
    const { read, written } = new TextEncoder().encodeInto(record, area);
    if (read < record.length) throw new StateError(`a record of ${record.length} characters`);
    this.#staged = { at, length: written, crc: crc32(area.subarray(0, written)) };
  }

  /** What was staged counts from now on; no message is involved. */
  save(): void {
    const { [CONSUME_BYTES]: consumeBytes = 0, [OUT_END]: outEnd = 0, [SEQ]: seq = 0 } = this.#slot;
    this.#write(seq, consumeBytes, outEnd);
  }

  /**
   * A message was acted upon, and this is the reply; `untakenBytes` of its socket, at most MOST_MESSAGE_BYTES, belong to it
   * and to messages before it. What was staged counts from now on. False when the replies that the frontend has not read
   * take too much room: nothing was changed.
   */
  commit(untakenBytes: number, reply: Uint8Array | null): boolean {
    let outEnd = this.#slot[OUT_END] ?? 0;
    if (outEnd === 0) outEnd = OUTBOX;
    if (reply !== null) {
      if (outEnd + reply.length > HEAD_BYTES) return false;
      this.#head.set(reply, outEnd);
      outEnd += reply.length;
    }
    this.#write(((this.#slot[SEQ] ?? 0) + 1) >>> 0, untakenBytes, outEnd);
    return true;
  }

  /** What the last commit named is about to be taken from its socket, of which `peekedBytes` were looked at. */
  takes(peekedBytes: number): void {
    Atomics.store(this.#consumed, 2, peekedBytes);
    Atomics.store(this.#consumed, 1, this.#seq);
  }

  /** What takes() was told after the last commit; null when it was not called. */
  get taking(): number | null {
    return Atomics.load(this.#consumed, 1) === this.#seq ? Atomics.load(this.#consumed, 2) : null;
  }

  /** What the last commit named is not in its socket any more. */
  taken(): void {
    Atomics.store(this.#consumed, 0, this.#seq);
  }

  /** The bytes of messages that were acted upon and may still be in their socket. */
  get untaken(): number {
    return Atomics.load(this.#consumed, 0) === this.#seq ? 0 : (this.#slot[CONSUME_BYTES] ?? 0);
  }

  /** How many bytes of replies have yet to be sent, from the file's offset on. */
  get unsentBytes(): number {
    return Math.max(0, (this.#slot[OUT_END] ?? 0) - this.#offset);
  }

  /** So many bytes more of them were sent from the file, which moved its offset. */
  sent(lenBytes: number): void {
    this.#offset += lenBytes;
  }

  /** Whether it is time for rewind(). */
  get outboxFills(): boolean {
    return (this.#slot[OUT_END] ?? 0) > OUTBOX + OUTBOX_BYTES / 2;
  }

  /** All replies were sent and read: their room is free again. */
  rewind(): void {
    const { [CONSUME_BYTES]: consumeBytes = 0, [SEQ]: seq = 0 } = this.#slot;
    this.#write(seq, consumeBytes, OUTBOX);
    setFileOffset(this.fd, OUTBOX);
    this.#offset = OUTBOX;
  }

  /** An area that reads as zeros. `lenBytes` a multiple of 4096. */
  allocate(lenBytes: number): Area {
    let offset = HEAD_BYTES;
    for (const area of this.#areas) {
      if (area.offset - offset >= lenBytes) break;
      offset = area.offset + area.lenBytes;
    }
    const end = offset + lenBytes;
    if (end > fstatSync(this.fd).size) ftruncateSync(this.fd, end);
    punchHole(this.fd, offset, lenBytes);
    return this.#add({ offset, lenBytes });
  }

  /** An area of a file that was opened. Throws StateError when it cannot be one. */
  claim({ offset, lenBytes }: Area): Area {
    const end = offset + lenBytes;
    const inside = offset >= HEAD_BYTES && offset % UNIT === 0 && lenBytes > 0 && lenBytes % UNIT === 0;
    const free = this.#areas.every((area) => area.offset >= end || area.offset + area.lenBytes <= offset);
    if (!inside || !free || end > fstatSync(this.fd).size) {
      throw new StateError(`an area of ${lenBytes} bytes at ${offset}`);
    }
    return this.#add({ offset, lenBytes });
  }

  free(area: Area): void {
    this.#areas.splice(this.#areas.indexOf(area), 1);
    punchHole(this.fd, area.offset, area.lenBytes);
  }

  map(area: Area): Mapping {
    return Mapping.map(this.fd, area.offset, area.lenBytes);
  }

  /** Copies out, without making holes any smaller. */
  read(offset: number, into: Uint8Array): void {
    readSync(this.fd, into, 0, into.length, offset);
  }

  /** Words and totals can still be read. */
  close(): void {
    this.words = this.words.slice();
    this.totals = this.totals.slice();
    this.#mapping.close();
    closeFd(this.fd);
  }

  /** Takes its hands off a file that cannot be gone on with: it stays as it is, and its fd is the caller's again. */
  letGo(): void {
    this.#mapping.close();
  }

  get #slot(): Uint32Array {
    return this.#slots[Atomics.load(this.#commit, 0) & 1 ? 1 : 0];
  }

  get #seq(): number {
    return (this.#slot[SEQ] ?? 0) | 0;
  }

  #add(area: Area): Area {
    this.#areas.push(area);
    this.#areas.sort((a, b) => a.offset - b.offset);
    return area;
  }

  #write(seq: number, consumeBytes: number, outEnd: number): void {
    const current = Atomics.load(this.#commit, 0);
    const last = this.#slot;
    const next = this.#slots[current & 1 ? 0 : 1];
    const staged = this.#staged;
    this.#staged = null;
    next[SEQ] = seq;
    next[CONSUME_BYTES] = consumeBytes;
    next[OUT_END] = outEnd;
    next[RECORD_AT] = staged?.at ?? last[RECORD_AT] ?? 0;
    next[RECORD_LENGTH] = staged?.length ?? last[RECORD_LENGTH] ?? 0;
    next[RECORD_CRC] = staged?.crc ?? last[RECORD_CRC] ?? 0;
    next[SLOT_CRC] = checksum(next);
    Atomics.store(this.#commit, 0, (current + 1) | 0);
  }

  #check(): void {
    const [magic, layout] = new Uint32Array(this.#head.buffer, 0, 2);
    if (magic !== MAGIC) throw new StateError('not a state file');
    if (layout !== LAYOUT_VERSION) {
      throw new StateError(
        `another balloond served the VM, with state files of layout ${layout ?? 0}, and this balloond knows ${LAYOUT_VERSION}: start that balloond again, which goes on with the VM, and do not reboot the VM before`,
      );
    }
    const slot = this.#slot;
    const { [RECORD_AT]: at = 0, [RECORD_LENGTH]: length = 0, [OUT_END]: outEnd = 0 } = slot;
    const consumeBytes = slot[CONSUME_BYTES] ?? 0;
    if (checksum(slot) !== slot[SLOT_CRC]) throw new StateError('its checksum is wrong');
    if (length > RECORD_BYTES || (length > 0 && at !== RECORDS && at !== RECORDS + RECORD_BYTES)) {
      throw new StateError(`a record of ${length} bytes at ${at}`);
    }
    if (crc32(this.#head.subarray(at, at + length)) !== slot[RECORD_CRC] && length > 0) {
      throw new StateError("its record's checksum is wrong");
    }
    if (consumeBytes > MOST_MESSAGE_BYTES) throw new StateError(`a message of ${consumeBytes} bytes`);
    if (!this.totals.every((total) => total >= 0 && Number.isFinite(total))) {
      throw new StateError('totals that are no numbers');
    }
    if (outEnd < OUTBOX || outEnd > HEAD_BYTES) throw new StateError(`replies up to ${outEnd}`);
    // rewind() commits first.
    if (fileOffset(this.fd) > outEnd) setFileOffset(this.fd, OUTBOX);
    this.#offset = fileOffset(this.fd);
    if (this.#offset < OUTBOX) throw new StateError('its offset is before the replies');
  }
}

function checksum(slot: Uint32Array): number {
  return crc32(new Uint8Array(slot.buffer, slot.byteOffset, 4 * SLOT_CRC));
}
