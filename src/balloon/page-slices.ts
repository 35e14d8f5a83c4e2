import type { GuestMemory } from '../memory/guest-memory.js';
import { PAGE_BYTES, type GuestRegion } from '../memory/region.js';

/**
 * Cuts a run of pages at the borders of regions: `visit` gets the first page in the region, and their number. Returns how
 * many of the pages no region holds that can be discarded.
 */
export function cutRun(
  memory: GuestMemory,
  firstPfn: number,
  pages: number,
  visit: (region: GuestRegion, first: number, count: number) => void,
): number {
  const gpa = firstPfn * PAGE_BYTES;
  const whole = memory.discardableRegion(gpa, pages * PAGE_BYTES);
  if (whole !== undefined) {
    visit(whole, (gpa - whole.gpa) / PAGE_BYTES, pages);
    return 0;
  }
  let outside = 0;
  for (const slice of memory.discardable(gpa, pages * PAGE_BYTES)) {
    const count = slice.lenBytes / PAGE_BYTES;
    if ('region' in slice) visit(slice.region, slice.offset / PAGE_BYTES, count);
    else outside += count;
  }
  return outside;
}
