import { GuestMemory } from '../../src/memory/guest-memory.js';

/** Guest memory that tells what is read of it, and gives its guest time to change it before and after each read. */
export class WatchedMemory extends GuestMemory {
  meddle: () => void = () => undefined;
  onRead: (bytes: Uint8Array) => void = () => undefined;

  override read(gpa: number, into: Uint8Array, intoOffset: number, lenBytes: number): boolean {
    this.meddle();
    const whole = super.read(gpa, into, intoOffset, lenBytes);
    if (whole) this.onRead(into.slice(intoOffset, intoOffset + lenBytes));
    this.meddle();
    return whole;
  }
}
