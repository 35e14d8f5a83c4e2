import { PAGE_BYTES } from '../memory/region.js';

/** No Linux guest is known to live in less, nor in much less than this part of its memory. A small guest has less to lose. */
const LEAST_GUEST_BYTES = 64 * 2 ** 20;
const LEAST_PART = 1 / 64;
const LEAST_PART_OF_SMALL = 1 / 4;

/**
 * The memory that a guest is left with, unless it is told to do with less. `kernelBytes`: memory that its kernel keeps and does
 * not count; 0 where the guest has said nothing.
 */
export function leastGuestBytes(ramBytes: number, kernelBytes = 0): number {
  const least = Math.max(Math.min(LEAST_GUEST_BYTES, ramBytes * LEAST_PART_OF_SMALL), ramBytes * LEAST_PART);
  return Math.min(ramBytes, Math.ceil((least + kernelBytes) / PAGE_BYTES) * PAGE_BYTES);
}
