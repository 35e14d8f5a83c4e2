import { DESC_BYTES } from '../../protocol/virtio/ring-split.js';
import { DriverError, OutsideError } from '../memory/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';

/**
 * Copies an indirect descriptor table into private memory, once. Returns how many descriptors it has.
 * virtio 1.3, 2.7.5.3: its length is a multiple of 16 and it holds no more descriptors than the queue.
 */
export function readIndirectTable(
  memory: GuestMemory,
  gpa: number,
  lenBytes: number,
  queueSize: number,
  into: Uint8Array,
): number {
  const count = lenBytes / DESC_BYTES;
  if (count < 1 || !Number.isInteger(count) || count > queueSize) {
    throw new DriverError(`an indirect table has ${lenBytes} bytes in a queue of ${queueSize}`);
  }
  if (!memory.read(gpa, into, 0, lenBytes)) {
    throw new OutsideError(
      `indirect table at 0x${gpa.toString(16)} is outside the memory that the VMM shares`,
    );
  }
  return count;
}
