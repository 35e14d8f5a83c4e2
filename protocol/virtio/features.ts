/** Feature bits of every virtio device, by their specification names (virtio 1.3, section 6). */
export const VirtioFeature = {
  VIRTIO_F_INDIRECT_DESC: 28,
  VIRTIO_F_EVENT_IDX: 29,
  VIRTIO_F_VERSION_1: 32,
  VIRTIO_F_ACCESS_PLATFORM: 33,
  VIRTIO_F_RING_PACKED: 34,
  VIRTIO_F_IN_ORDER: 35,
  VIRTIO_F_ORDER_PLATFORM: 36,
  VIRTIO_F_SR_IOV: 37,
  VIRTIO_F_NOTIFICATION_DATA: 38,
  VIRTIO_F_NOTIF_CONFIG_DATA: 39,
  VIRTIO_F_RING_RESET: 40,
} as const;

/** A set of feature bits as it travels: bit n is feature n. */
export type FeatureBits = bigint;

export function hasFeature(bits: FeatureBits, bit: number): boolean {
  return ((bits >> BigInt(bit)) & 1n) === 1n;
}

export function featureMask(...bits: number[]): FeatureBits {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

/** Spec names of the bits set, lowest first; a bit nobody named is `bit-N`. */
export function featureNames(bits: FeatureBits, ...tables: Readonly<Record<string, number>>[]): string[] {
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (!hasFeature(bits, bit)) continue;
    const named = tables.flatMap((table) => Object.entries(table)).find(([, value]) => value === bit);
    names.push(named?.[0] ?? `bit-${bit}`);
  }
  return names;
}
