/**
 * Layout of a split virtqueue (virtio 1.3, section 2.7). All fields are little-endian; with VIRTIO_F_VERSION_1
 * not negotiated they are guest-native, which is the same on every host this daemon runs on.
 */
export const DESC_BYTES = 16;

export const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;
export const VIRTQ_DESC_F_INDIRECT = 4;

export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
export const VIRTQ_USED_F_NO_NOTIFY = 1;

/** "Queue Size is always a power of 2. The maximum Queue Size value is 32768." */
export const MAX_QUEUE_SIZE = 32768;

const USED_ELEM_BYTES = 8;

export function descTableBytes(size: number): number {
  return size * DESC_BYTES;
}

/** le16 flags, le16 idx, le16 ring[size], le16 used_event. */
export function availRingBytes(size: number): number {
  return 6 + 2 * size;
}

/** le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event. */
export function usedRingBytes(size: number): number {
  return 6 + USED_ELEM_BYTES * size;
}

/** virtio 1.3, 2.7.10: whether moving an index from `before` to `after` passed `event` (all modulo 2^16). */
export function crossedEvent(event: number, after: number, before: number): boolean {
  return ((after - event - 1) & 0xffff) < ((after - before) & 0xffff);
}
