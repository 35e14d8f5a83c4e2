/** The messages of D-Bus (D-Bus specification, "Message Protocol"), as a client of the bus sends and gets them. */
import { VmmError } from '../adopted.js';
import { alignedUp, DbusReader, DbusWriter, type SentValue } from './values.js';

/** A method of an object, and what it is called with. */
export interface DbusCall {
  readonly destination: string;
  readonly path: string;
  readonly interface: string;
  readonly member: string;
  /** Of `args`; basic types only. */
  readonly signature: string;
  readonly args: readonly SentValue[];
}

export type DbusMessage =
  | { readonly kind: 'answer'; readonly to: number; readonly values: readonly unknown[] }
  | { readonly kind: 'refusal'; readonly to: number; readonly error: VmmError }
  | DbusSignal
  /** Calls of others, which a client that offers nothing leaves alone. */
  | { readonly kind: 'other' };

export interface DbusSignal {
  readonly kind: 'signal';
  readonly path: string;
  readonly interface: string;
  readonly member: string;
  readonly values: readonly unknown[];
}

const CALL = 1;
const RETURN = 2;
const ERROR = 3;
const SIGNAL = 4;
const FIELD = { path: 1, interface: 2, member: 3, errorName: 4, replyTo: 5, destination: 6, signature: 8 };
/** The fixed part of a header, with the length of the fields behind it. */
const HEAD_BYTES = 16;
const VERSION = 1;
/** The description of a domain has some 10 KiB, and a list of a thousand domains 80 KiB. */
export const MAX_MESSAGE_BYTES = 2 ** 22;
const LITTLE = 0x6c;
const BIG = 0x42;
/** Words of a peer that go into messages are cut. */
const MAX_WORDS = 300;

/** One call, as it is sent. */
export function encodeCall(serial: number, call: DbusCall): Uint8Array {
  const body = new DbusWriter().values(call.signature, call.args).done();
  const fields = new DbusWriter()
    .field(FIELD.path, 'o', call.path)
    .field(FIELD.interface, 's', call.interface)
    .field(FIELD.member, 's', call.member)
    .field(FIELD.destination, 's', call.destination);
  if (call.signature !== '') fields.field(FIELD.signature, 'g', call.signature);
  const fieldBytes = fields.done();
  const head = new DbusWriter()
    .values('yyyy', [LITTLE, CALL, 0, VERSION])
    .values('uuu', [body.length, serial, fieldBytes.length])
    .done();
  const bytes = new Uint8Array(alignedUp(HEAD_BYTES + fieldBytes.length, 8) + body.length);
  bytes.set(head);
  bytes.set(fieldBytes, HEAD_BYTES);
  bytes.set(body, bytes.length - body.length);
  return bytes;
}

/** Cuts what a bus sends into messages. */
export class DbusMessages {
  #rest: Uint8Array = new Uint8Array(0);

  /** The messages that end in `chunk`. Throws VmmError, after which no further chunk may come. */
  push(chunk: Uint8Array): DbusMessage[] {
    let bytes = chunk;
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length);
      bytes.set(this.#rest);
      bytes.set(chunk, this.#rest.length);
    }
    const messages: DbusMessage[] = [];
    while (bytes.length >= HEAD_BYTES) {
      const { length, fieldBytes, littleEndian } = frame(bytes);
      if (bytes.length < length) break;
      messages.push(decode(bytes.subarray(0, length), fieldBytes, littleEndian));
      bytes = bytes.subarray(length);
    }
    this.#rest = bytes.slice();
    return messages;
  }
}

function frame(bytes: Uint8Array): { length: number; fieldBytes: number; littleEndian: boolean } {
  const [order, , , version] = bytes;
  if ((order !== LITTLE && order !== BIG) || version !== VERSION)
    throw new VmmError('the peer sends something else than messages of D-Bus');
  const littleEndian = order === LITTLE;
  const [bodyBytes, , fieldBytes] = new DbusReader(bytes, littleEndian, 4).values('uuu') as number[];
  const length = alignedUp(HEAD_BYTES + (fieldBytes ?? 0), 8) + (bodyBytes ?? 0);
  if (length > MAX_MESSAGE_BYTES)
    throw new VmmError(`the bus sends a message of more than ${MAX_MESSAGE_BYTES} bytes`);
  return { length, fieldBytes: fieldBytes ?? 0, littleEndian };
}

function decode(bytes: Uint8Array, fieldBytes: number, littleEndian: boolean): DbusMessage {
  const head = bytes.subarray(0, HEAD_BYTES + fieldBytes);
  const [list = []] = new DbusReader(head, littleEndian, HEAD_BYTES - 4).values('a(yv)') as unknown[][];
  const fields = new Map(list as [number, unknown][]);
  const text = (code: number): string => {
    const value = fields.get(code);
    return typeof value === 'string' ? value : '';
  };
  const body = new DbusReader(bytes, littleEndian, alignedUp(head.length, 8));
  const values = (): unknown[] => body.values(text(FIELD.signature));
  const replyTo = fields.get(FIELD.replyTo);
  const to = typeof replyTo === 'number' ? replyTo : 0;
  switch (bytes[1]) {
    case RETURN:
      return { kind: 'answer', to, values: values() };
    case ERROR:
      return { kind: 'refusal', to, error: new VmmError(words(values()[0]), text(FIELD.errorName)) };
    case SIGNAL:
      return {
        kind: 'signal',
        path: text(FIELD.path),
        interface: text(FIELD.interface),
        member: text(FIELD.member),
        values: values(),
      };
    default:
      return { kind: 'other' };
  }
}

/** Safe for logs and terminals. */
function words(value: unknown): string {
  if (typeof value !== 'string') return 'no words';
  return value.replaceAll(/[\p{C}]/gu, ' ').slice(0, MAX_WORDS);
}
