/** The state of a device as a VMM keeps it in a snapshot, or sends it to another host: what a daemon goes on from. */
import { crc32 } from 'node:zlib';
import { Check, Errors } from 'typebox/schema';
import { Type, type Static } from '../../protocol/json-schema.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { PageSet } from '../memory/page-set.js';
import { PAGE_BYTES } from '../memory/region.js';
import { StateError } from '../memory/state-file.js';
import { msAgo, msSince, type Monotonic } from '../os/clock.js';
import { cutRun } from './page-slices.js';

/** Changes with the meaning of a state; a daemon takes no newer one. */
const VERSION = 1;

/**
 *      0  "balloond" in ASCII
 *      8  le32 version
 *     12  le32 bytes of the head
 *     16  le32 CRC-32 of all that follows
 *     20  the head, in JSON
 *      …  a bit for each page of the chunks that the head names
 */
const MAGIC = new TextEncoder().encode('balloond');
const HEAD_AT = 20;

/** Pages of guest-physical memory whose bits are together, and the bytes that they take. */
const CHUNK_PAGES = 32768;
const CHUNK_BYTES = CHUNK_PAGES / 8;

const U32 = Type.Integer({ minimum: 0, maximum: 0xffffffff });
/** Numbers of chunks, of pages with numbers of 32 bits. */
const Chunks = Type.Array(Type.Integer({ minimum: 0, maximum: 2 ** 32 / CHUNK_PAGES - 1 }));

const Head = Type.Object({
  kind: Type.String({ maxLength: 64 }),
  numPages: U32,
  actual: U32,
  poisonVal: U32,
  /** The driver had yet to say how much it holds. */
  unknown: Type.Boolean(),
  stats: Type.Union([
    Type.Object({
      ageSeconds: Type.Number({ minimum: 0 }),
      values: Type.Record(Type.String(), Type.Number()),
    }),
    Type.Null(),
  ]),
  /** Of a page cache balloon on the same device. */
  cache: Type.Optional(Type.Object({ numPages: U32, actual: U32 })),
  /** Pages in the balloon, and those of them that owe a discard. */
  ballooned: Chunks,
  pending: Chunks,
});
type Head = Static<typeof Head>;

type Pages = ReadonlyMap<number, PageSet>;

/** Of a device that was saved. */
export interface DeviceState extends Pick<Head, 'numPages' | 'actual' | 'poisonVal' | 'unknown' | 'cache'> {
  readonly stats: { readonly values: ReadonlyMap<string, number>; readonly receivedAt: Monotonic } | null;
  readonly ballooned: Pages;
  readonly pending: Pages;
  /** As it was saved. */
  readonly bytes: Uint8Array;
}

/** `kind`: a name for the kind of device. */
export function encodeState(
  kind: string,
  memory: GuestMemory,
  { stats, ...state }: Omit<DeviceState, 'ballooned' | 'pending' | 'bytes'>,
): Uint8Array {
  const [ballooned, pending] = [new Map<number, PageSet>(), new Map<number, PageSet>()];
  for (const { gpa, ledger } of memory.regions) {
    collect(ballooned, gpa / PAGE_BYTES, ledger.ballooned);
    collect(pending, gpa / PAGE_BYTES, ledger.pending);
  }
  const head: Head = {
    kind,
    ...state,
    stats: stats && {
      ageSeconds: msSince(stats.receivedAt) / 1000,
      values: Object.fromEntries(stats.values),
    },
    ballooned: [...ballooned.keys()],
    pending: [...pending.keys()],
  };
  const text = new TextEncoder().encode(JSON.stringify(head));
  const bits = [...ballooned.values(), ...pending.values()].map(bitsOf);
  const bytes = Buffer.concat([new Uint8Array(HEAD_AT), text, ...bits]);
  bytes.set(MAGIC);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(text.length, 12);
  bytes.writeUInt32LE(crc32(bytes.subarray(HEAD_AT)), 16);
  return bytes;
}

/** The state that was saved of a device of this `kind`. Throws StateError, in words for an operator. */
export function decodeState(kind: string, bytes: Uint8Array): DeviceState {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEAD_AT)
    throw new StateError(`the state of the device ends after ${bytes.length} bytes`);
  if (!MAGIC.every((byte, at) => bytes[at] === byte)) {
    throw new StateError(
      'the state of the device is not from balloond: restore the VM with the device it had',
    );
  }
  const version = view.getUint32(8, true);
  if (version === 0) throw new StateError('the state of the device has no version');
  if (version > VERSION) {
    throw new StateError(
      `a newer balloond saved the state of the device, in version ${version}, and this balloond knows ${VERSION}: restore the VM with the newer balloond`,
    );
  }
  const bodyAt = HEAD_AT + view.getUint32(12, true);
  if (bodyAt > bytes.length) throw new StateError(`the state of the device ends after ${bytes.length} bytes`);
  if (crc32(bytes.subarray(HEAD_AT)) !== view.getUint32(16, true)) {
    throw new StateError('the checksum of the state of the device is wrong');
  }
  const head = parseHead(bytes.subarray(HEAD_AT, bodyAt));
  if (head.kind !== kind) {
    throw new StateError(`the state is of a device of the kind ${head.kind}, and this one is of ${kind}`);
  }
  const chunks = head.ballooned.length + head.pending.length;
  if (bytes.length !== bodyAt + chunks * CHUNK_BYTES) {
    throw new StateError(`the state of the device has ${bytes.length} bytes for ${chunks} chunks of pages`);
  }
  const pagesFrom = (numbers: readonly number[], first: number): Pages =>
    new Map(numbers.map((chunk, n) => [chunk, setOf(bytes, bodyAt + (first + n) * CHUNK_BYTES)]));
  const state = {
    ...head,
    bytes,
    stats: head.stats && {
      values: new Map(Object.entries(head.stats.values)),
      receivedAt: msAgo(head.stats.ageSeconds * 1000),
    },
    ballooned: pagesFrom(head.ballooned, 0),
    pending: pagesFrom(head.pending, head.ballooned.length),
  };
  for (const [chunk, pages] of state.pending) {
    const held = state.ballooned.get(chunk);
    for (const { first, count } of pages.runs()) {
      if (held?.covers(first, count) !== true) {
        throw new StateError('the state of the device has pages that owe a discard outside the balloon');
      }
    }
  }
  return state;
}

/** Puts the pages of a state into the ledgers of the regions. `tellsFirst`: those that owe a discard owe it again. */
export function fillLedgers(
  memory: GuestMemory,
  { ballooned, pending }: Pick<DeviceState, 'ballooned' | 'pending'>,
  tellsFirst: boolean,
): void {
  visitPages(memory, ballooned, ({ ledger }, first, count) => ledger.inflateKept(first, count));
  if (tellsFirst) visitPages(memory, pending, ({ ledger }, first, count) => ledger.inflate(first, count));
}

function visitPages(memory: GuestMemory, pages: Pages, visit: Parameters<typeof cutRun>[3]): void {
  for (const [chunk, set] of pages) {
    for (const { first, count } of set.runs()) cutRun(memory, chunk * CHUNK_PAGES + first, count, visit);
  }
}

function parseHead(bytes: Uint8Array): Head {
  let head: unknown;
  try {
    head = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new StateError('the head of the state of the device is no JSON');
  }
  if (!Check(Head, head)) {
    const [, [first]] = Errors(Head, head);
    throw new StateError(
      `the state of the device: ${first?.instancePath ?? ''} ${first?.message ?? 'is wrong'}`,
    );
  }
  return head;
}

/** Adds the pages of a set whose first is page `base` of guest-physical memory. */
function collect(into: Map<number, PageSet>, base: number, pages: PageSet): void {
  for (const { first, count } of pages.runs()) {
    for (let page = base + first, end = page + count; page < end;) {
      const chunk = Math.floor(page / CHUNK_PAGES);
      const until = Math.min(end, (chunk + 1) * CHUNK_PAGES);
      let set = into.get(chunk);
      if (set === undefined) into.set(chunk, (set = new PageSet(new ArrayBuffer(CHUNK_BYTES), CHUNK_PAGES)));
      set.add(page - chunk * CHUNK_PAGES, until - page);
      page = until;
    }
  }
}

function bitsOf(pages: PageSet): Uint8Array {
  const bits = new Uint8Array(CHUNK_BYTES);
  for (const { first, count } of pages.runs()) {
    for (let page = first; page < first + count; page++)
      bits[page >>> 3] = (bits[page >>> 3] ?? 0) | (1 << (page & 7));
  }
  return bits;
}

function setOf(bytes: Uint8Array, at: number): PageSet {
  const bits = new Uint8Array(CHUNK_BYTES);
  bits.set(bytes.subarray(at, at + CHUNK_BYTES));
  const set = new PageSet(bits.buffer, CHUNK_PAGES);
  set.know(0, new Uint32Array(bits.buffer));
  return set;
}
