/** Which guest statistics are sizes, and how to write one. */
import { formatSize } from '../../../protocol/control/size.js';

const SIZES = new Set(
  [
    'SWAP_IN',
    'SWAP_OUT',
    'MEMFREE',
    'MEMTOT',
    'AVAIL',
    'CACHES',
    'ASYNC_SCAN',
    'DIRECT_SCAN',
    'ASYNC_RECLAIM',
    'DIRECT_RECLAIM',
  ].map((name) => `VIRTIO_BALLOON_S_${name}`),
);

/** A size for the tags in bytes, a plain number for counts and for unknown tags. */
export function formatStat(name: string, value: number): string {
  return SIZES.has(name) ? formatSize(value) : String(value);
}

/** `3 s`, `5 min`, `2 h`. */
export function formatAge(seconds: number): string {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
