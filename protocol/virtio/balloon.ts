/**
 * The traditional memory balloon (virtio 1.3, section 5.5; Linux include/uapi/linux/virtio_balloon.h):
 * features, virtqueues, configuration space and statistics.
 */

export const BalloonFeature = {
  VIRTIO_BALLOON_F_MUST_TELL_HOST: 0,
  VIRTIO_BALLOON_F_STATS_VQ: 1,
  VIRTIO_BALLOON_F_DEFLATE_ON_OOM: 2,
  VIRTIO_BALLOON_F_FREE_PAGE_HINT: 3,
  VIRTIO_BALLOON_F_PAGE_POISON: 4,
  VIRTIO_BALLOON_F_REPORTING: 5,
} as const;
export type BalloonFeatureName = keyof typeof BalloonFeature;

/**
 * What a virtqueue is for, in the order in which the specification numbers them (0 to 4), and the queues of the page cache
 * balloon (docs/cache-balloon.md) after those.
 */
export const BALLOON_QUEUES = [
  'inflate',
  'deflate',
  'stats',
  'hint',
  'reporting',
  'cache',
  'reclaim',
] as const;
export type BalloonQueue = (typeof BALLOON_QUEUES)[number];

/** PFNs count 4 KiB pages whatever the guest's page size is ("historically"). */
export const BALLOON_PAGE_BYTES = 4096;
export const PFN_BYTES = 4;

/** struct virtio_balloon_config: four le32. The config space of the page cache balloon follows it. */
export const CONFIG_BYTES = 16;
export const CONFIG_NUM_PAGES = 0;
export const CONFIG_ACTUAL = 4;
export const CONFIG_POISON_VAL = 12;

/** struct virtio_balloon_stat, packed: le16 tag, le64 val. */
export const STAT_BYTES = 10;

/** Tags by number. Sizes are bytes, the rest are counts. */
export const STAT_NAMES = [
  'VIRTIO_BALLOON_S_SWAP_IN',
  'VIRTIO_BALLOON_S_SWAP_OUT',
  'VIRTIO_BALLOON_S_MAJFLT',
  'VIRTIO_BALLOON_S_MINFLT',
  'VIRTIO_BALLOON_S_MEMFREE',
  'VIRTIO_BALLOON_S_MEMTOT',
  'VIRTIO_BALLOON_S_AVAIL',
  'VIRTIO_BALLOON_S_CACHES',
  'VIRTIO_BALLOON_S_HTLB_PGALLOC',
  'VIRTIO_BALLOON_S_HTLB_PGFAIL',
  'VIRTIO_BALLOON_S_OOM_KILL',
  'VIRTIO_BALLOON_S_ALLOC_STALL',
  'VIRTIO_BALLOON_S_ASYNC_SCAN',
  'VIRTIO_BALLOON_S_DIRECT_SCAN',
  'VIRTIO_BALLOON_S_ASYNC_RECLAIM',
  'VIRTIO_BALLOON_S_DIRECT_RECLAIM',
] as const;

/** A tag nobody named yet keeps its number: `tag-16`. */
export function statName(tag: number): string {
  return STAT_NAMES[tag] ?? `tag-${tag}`;
}

/** The value of a statistic that a guest does not know: all bits are set, as in QEMU's own statistics. */
const UNKNOWN = 2n ** 64n - 1n;

/**
 * Decodes a statistics buffer; `bytes` must be a multiple of STAT_BYTES long. A tag sent twice keeps the last; one whose value
 * the guest does not know is left out, as if the guest had not sent it.
 */
export function decodeStats(bytes: Uint8Array): Map<string, number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stats = new Map<string, number>();
  for (let at = 0; at + STAT_BYTES <= bytes.length; at += STAT_BYTES) {
    const value = view.getBigUint64(at + 2, true);
    if (value !== UNKNOWN) stats.set(statName(view.getUint16(at, true)), Number(value));
  }
  return stats;
}
