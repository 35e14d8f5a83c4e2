/**
 * The values of D-Bus messages by their signatures (D-Bus specification, "Type System" and "Marshaling"). An array is an array, a
 * struct and an entry of a dictionary are arrays of their parts, a variant is the value in it. Integers of 64 bits that are no
 * safe integers are rounded, which no size or count that can be true is.
 */
import { VmmError } from '../adopted.js';

/** Deeper than any message of libvirt; the specification allows 64. */
const MAX_DEPTH = 32;

const ALIGNMENT: Readonly<Record<string, number>> = {
  ...{ y: 1, g: 1, v: 1 },
  ...{ n: 2, q: 2 },
  ...{ b: 4, i: 4, u: 4, h: 4, s: 4, o: 4, a: 4 },
  ...{ x: 8, t: 8, d: 8, '(': 8, '{': 8 },
};

/** Reads the values of one message. All throw VmmError where the bytes are no such values. */
export class DbusReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #littleEndian: boolean;
  #at: number;

  /** `at`: a multiple of 8 from the beginning of the message, or `bytes` begins there. */
  constructor(bytes: Uint8Array, littleEndian: boolean, at = 0) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#littleEndian = littleEndian;
    this.#at = at;
  }

  /** The values of all complete types of a signature. */
  values(signature: string): unknown[] {
    const values: unknown[] = [];
    for (let at = 0; at < signature.length;) {
      const end = typeEnd(signature, at);
      values.push(this.#value(signature.slice(at, end), 0));
      at = end;
    }
    return values;
  }

  #value(type: string, depth: number): unknown {
    if (depth > MAX_DEPTH) throw new VmmError(`the bus sends values of more than ${MAX_DEPTH} levels`);
    this.#align(ALIGNMENT[type[0] ?? ''] ?? 1);
    switch (type[0]) {
      case 'y':
        return this.#view.getUint8(this.#take(1));
      case 'b':
        return this.#uint32() !== 0;
      case 'n':
        return this.#view.getInt16(this.#take(2), this.#littleEndian);
      case 'q':
        return this.#view.getUint16(this.#take(2), this.#littleEndian);
      case 'i':
        return this.#view.getInt32(this.#take(4), this.#littleEndian);
      case 'u':
      case 'h':
        return this.#uint32();
      case 'x':
        return Number(this.#view.getBigInt64(this.#take(8), this.#littleEndian));
      case 't':
        return Number(this.#view.getBigUint64(this.#take(8), this.#littleEndian));
      case 'd':
        return this.#view.getFloat64(this.#take(8), this.#littleEndian);
      case 's':
      case 'o':
        return this.#text(this.#uint32());
      case 'g':
        return this.#text(this.#view.getUint8(this.#take(1)));
      case 'v':
        return this.#variant(depth);
      case 'a':
        return this.#array(type.slice(1), depth);
      case '(':
      case '{':
        return this.#parts(type.slice(1, -1), depth);
      default:
        throw new VmmError('the bus sends values of an unknown type');
    }
  }

  #variant(depth: number): unknown {
    const signature = this.#text(this.#view.getUint8(this.#take(1)));
    if (signature === '' || typeEnd(signature, 0) !== signature.length)
      throw new VmmError('the bus sends a variant of no type');
    return this.#value(signature, depth + 1);
  }

  #array(type: string, depth: number): unknown[] {
    const length = this.#uint32();
    this.#align(ALIGNMENT[type[0] ?? ''] ?? 1);
    const end = this.#at + length;
    const values: unknown[] = [];
    while (this.#at < end) values.push(this.#value(type, depth + 1));
    if (this.#at !== end) throw new VmmError('the bus sends an array that ends within a value');
    return values;
  }

  #parts(types: string, depth: number): unknown[] {
    // It would take no bytes, and an array of them would never end.
    if (types === '') throw new VmmError('the bus sends a struct of nothing');
    const parts: unknown[] = [];
    for (let at = 0; at < types.length;) {
      const end = typeEnd(types, at);
      parts.push(this.#value(types.slice(at, end), depth + 1));
      at = end;
    }
    return parts;
  }

  #uint32(): number {
    return this.#view.getUint32(this.#take(4), this.#littleEndian);
  }

  /** With the NUL behind it. */
  #text(length: number): string {
    const at = this.#take(length + 1);
    return new TextDecoder().decode(this.#bytes.subarray(at, at + length));
  }

  #align(to: number): void {
    this.#at = alignedUp(this.#at, to);
  }

  #take(bytes: number): number {
    const at = this.#at;
    if (bytes > this.#bytes.length - at)
      throw new VmmError('the bus sends a message that ends within a value');
    this.#at += bytes;
    return at;
  }
}

/** Values that are sent: of `u` and `i` numbers, of `t` a bigint or number, of `s`, `o` and `g` texts. */
export type SentValue = string | number | bigint;

/** Writes values little-endian, at a multiple of 8. */
export class DbusWriter {
  #bytes: number[] = [];

  /** Of basic types only. */
  values(signature: string, values: readonly SentValue[]): this {
    values.forEach((value, n) => this.#value(signature[n] ?? '', value));
    return this;
  }

  /** A field of a header: its code, and its value as a variant. */
  field(code: number, type: string, value: SentValue): this {
    this.align(8);
    this.#bytes.push(code, 1, type.charCodeAt(0), 0);
    this.#value(type, value);
    return this;
  }

  align(to: number): this {
    while (this.#bytes.length % to !== 0) this.#bytes.push(0);
    return this;
  }

  done(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  #value(type: string, value: SentValue): void {
    this.align(ALIGNMENT[type] ?? 1);
    if (type === 's' || type === 'o' || type === 'g') {
      const text = new TextEncoder().encode(String(value));
      if (type === 'g') this.#bytes.push(text.length);
      else this.#integer(4, text.length);
      for (const byte of text) this.#bytes.push(byte);
      this.#bytes.push(0);
    } else this.#integer(type === 't' ? 8 : type === 'y' ? 1 : 4, Number(value));
  }

  #integer(bytes: number, value: number): void {
    for (let n = 0, rest = BigInt(value); n < bytes; n++, rest >>= 8n) this.#bytes.push(Number(rest & 0xffn));
  }
}

export function alignedUp(at: number, to: number): number {
  return Math.ceil(at / to) * to;
}

/** The end of the complete type that begins at `at`. */
function typeEnd(signature: string, at: number): number {
  let end = at;
  while (signature[end] === 'a') end++;
  const open = signature[end];
  if (open === undefined) throw new VmmError('the bus sends a signature that ends within a type');
  if (open !== '(' && open !== '{') return end + 1;
  for (let depth = 0; end < signature.length; end++) {
    if (signature[end] === '(' || signature[end] === '{') depth++;
    else if ((signature[end] === ')' || signature[end] === '}') && --depth === 0) return end + 1;
  }
  throw new VmmError('the bus sends a signature that ends within a type');
}
