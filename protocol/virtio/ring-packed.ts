/** Layout of a packed virtqueue (virtio 1.3, section 2.8): one ring of descriptors that both sides write. */
export const PACKED_DESC_BYTES = 16;

export const VIRTQ_DESC_F_AVAIL = 1 << 7;
export const VIRTQ_DESC_F_USED = 1 << 15;

/** Event suppression structure: le16 offset (15 bits) and wrap counter (top bit), le16 flags. */
export const EVENT_SUPPRESSION_BYTES = 4;
export const RING_EVENT_FLAGS_ENABLE = 0;
export const RING_EVENT_FLAGS_DISABLE = 1;
export const RING_EVENT_FLAGS_DESC = 2;

export function packedRingBytes(size: number): number {
  return size * PACKED_DESC_BYTES;
}
