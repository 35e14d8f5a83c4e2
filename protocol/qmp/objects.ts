/**
 * Cuts what a QMP server sends into JSON objects, without parsing them: one object a line, or over several lines where the
 * server was told to print nicely. Memory is bounded, and a peer that sends something else is found out at its first byte.
 */
import { VmmError } from '../adopted.js';

/** The answer to qom-list of a large VM has some 100 KiB. */
export const MAX_OBJECT_BYTES = 2 ** 20;
/** QEMU's own parser takes 1024; answers that this project asks for have less than ten. */
const MAX_DEPTH = 64;

/** Bytes that mean something; those of letters beyond ASCII are other ones. */
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const BRACE = 0x7b;
const BRACE_END = 0x7d;
const BRACKET = 0x5b;
const BRACKET_END = 0x5d;
const SPACES: readonly number[] = [0x20, 0x09, 0x0a, 0x0d];

/** For all: an object is decoded in one go. */
const decoder = new TextDecoder();

export class QmpObjects {
  /** The beginning of an object whose end has not come yet. */
  #parts: Uint8Array[] = [];
  #partBytes = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** The objects that end in `chunk`, as text. Throws VmmError, after which no further chunk may come. */
  push(chunk: Uint8Array): string[] {
    const objects: string[] = [];
    let begin = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] ?? 0;
      if (this.#depth === 0) {
        if (SPACES.includes(byte)) continue;
        if (byte !== BRACE) throw new VmmError('the peer sends something else than JSON objects');
        begin = at;
      }
      if (!this.#step(byte)) continue;
      objects.push(this.#take(chunk.subarray(begin, at + 1)));
    }
    if (this.#depth > 0) this.#keep(chunk.subarray(begin));
    return objects;
  }

  /** Whether the object ends with this byte. */
  #step(byte: number): boolean {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return false;
    }
    if (byte === QUOTE) this.#inString = true;
    else if (byte === BRACE || byte === BRACKET) {
      if (++this.#depth > MAX_DEPTH) throw new VmmError(`the peer nests more than ${MAX_DEPTH} deep`);
    } else if (byte === BRACE_END || byte === BRACKET_END) return --this.#depth === 0;
    return false;
  }

  #keep(part: Uint8Array): void {
    this.#partBytes += part.length;
    if (this.#partBytes > MAX_OBJECT_BYTES)
      throw new VmmError(`the peer sends an object of more than ${MAX_OBJECT_BYTES} bytes`);
    // Of its own: the chunk is the caller's.
    this.#parts.push(part.slice());
  }

  #take(end: Uint8Array): string {
    // Most come in one piece.
    if (this.#parts.length === 0 && end.length <= MAX_OBJECT_BYTES) return decoder.decode(end);
    this.#keep(end);
    const text =
      this.#parts.map((part) => decoder.decode(part, { stream: true })).join('') + decoder.decode();
    this.#parts = [];
    this.#partBytes = 0;
    return text;
  }
}
