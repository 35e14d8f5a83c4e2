/**
 * The page cache balloon (docs/cache-balloon.md): features, virtqueues, configuration space and entries. It is a part of the
 * traditional balloon for drivers that ack RANGES, or a device of its own, which without any feature bit is that of 2012.
 */
import { CONFIG_BYTES } from './balloon.js';

/** None of them is a bit of the traditional balloon, so that a driver at the wrong device acks none. */
export const CacheBalloonFeature = {
  VIRTIO_CACHE_BALLOON_F_RANGES: 16,
  VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM: 17,
  VIRTIO_CACHE_BALLOON_F_LOCK: 18,
} as const;
export type CacheBalloonFeatureName = keyof typeof CacheBalloonFeature;

/** The number of the second of its virtqueues, where the device is one of its own. */
export const RECLAIMQ = 1;
export const CACHE_BALLOON_QUEUES = 2;

/** struct virtio_cache_balloon_config: seven le32. The host writes num_pages and lock, and sets need_stats. */
export const CACHE_CONFIG_BYTES = 28;
/** The config space of a traditional balloon with a page cache balloon. */
export const BALLOON_SPACE_BYTES = CONFIG_BYTES + CACHE_CONFIG_BYTES;
export const CACHE_CONFIG_NUM_PAGES = 0;
export const CACHE_CONFIG_ACTUAL = 4;
export const CACHE_CONFIG_PAGES_TOTAL = 8;
export const CACHE_CONFIG_PAGES_FREE = 12;
export const CACHE_CONFIG_NEED_STATS = 16;
export const CACHE_CONFIG_LOCK = 20;
export const CACHE_CONFIG_LOCKED = 24;

/** An entry of a buffer: le32 page frame number, or with RANGES le64 address | order. */
export const RANGE_BYTES = 8;
/** Orders up to 1 GiB. */
const MAX_RANGE_ORDER = 18;

/** The block of 2^order pages of 4 KiB that an entry names; null when it is none. */
export function decodeRange(low: number, high: number): { firstPfn: number; pages: number } | null {
  const order = low & 0xfff;
  if (order > MAX_RANGE_ORDER) return null;
  const firstPfn = high * 2 ** 20 + (low >>> 12);
  const pages = 2 ** order;
  return firstPfn % pages === 0 ? { firstPfn, pages } : null;
}
