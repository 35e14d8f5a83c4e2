import { DriverError, OutsideError } from '../memory/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';

/** One buffer of a chain, still in guest addresses: who uses it resolves it, once. */
export interface Segment {
  gpa: number;
  lenBytes: number;
  /** The device may write it (and must not read it). */
  writable: boolean;
}

/** A popped descriptor chain. `id` gives it back: the head's index (split) or the buffer id (packed). */
export interface Chain {
  readonly id: number;
  /** Descriptors it takes up in a packed ring; 1 in a split ring. */
  readonly slots: number;
  readonly segments: readonly Segment[];
}

/** Two le32 halves of a guest address; beyond 2^53 it is in no guest. */
export function guestAddress(low: number, high: number): number {
  if (high > 0x1fffff) throw new DriverError('descriptor address is beyond 2^53');
  return high * 2 ** 32 + low;
}

/** Copies the whole of a chain that the device may only read. Throws DriverError beyond `maxBytes`. */
export function readChain(memory: GuestMemory, chain: Chain, scratch: Uint8Array): Uint8Array {
  let length = 0;
  for (const segment of chain.segments) {
    if (segment.writable)
      throw new DriverError('a device-writable descriptor is where only device-readable descriptors belong');
    if (length + segment.lenBytes > scratch.length) {
      throw new DriverError(`buffer is longer than ${scratch.length} bytes`);
    }
    if (!memory.read(segment.gpa, scratch, length, segment.lenBytes)) {
      throw new OutsideError(
        `descriptor at 0x${segment.gpa.toString(16)} of ${segment.lenBytes} bytes is outside the memory that the VMM shares`,
      );
    }
    length += segment.lenBytes;
  }
  return scratch.subarray(0, length);
}
