/** The queue of a vring: found in guest memory where the frontend said that its parts are, and checked. */
import type { VringAddress } from '../../protocol/vhost-user/payloads.js';
import { VirtioFeature, hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { EVENT_SUPPRESSION_BYTES, packedRingBytes } from '../../protocol/virtio/ring-packed.js';
import { availRingBytes, descTableBytes, usedRingBytes } from '../../protocol/virtio/ring-split.js';
import { DriverError, FrontendError, OutsideError } from '../memory/errors.js';
import type { GuestMemory, GuestSlice } from '../memory/guest-memory.js';
import { PackedQueue } from '../virtqueue/packed-queue.js';
import type { Queue, RingLayout } from '../virtqueue/queue.js';
import { SplitQueue } from '../virtqueue/split-queue.js';

/** What the frontend said of a ring. */
interface RingPlace {
  readonly size: number;
  readonly address: VringAddress | null;
  /** Of a packed ring (RingLayout.position). */
  readonly position: Uint32Array;
}

/**
 * The queue at that place; `onWrite` is told of each write to it. Throws DriverError where the driver cannot have meant
 * the place, FrontendError where the VMM shares no memory.
 */
export function openQueue(
  { size, address, position }: RingPlace,
  memory: GuestMemory,
  features: FeatureBits,
  onWrite: (slice: GuestSlice, offset: number, lenBytes: number) => void,
): Queue {
  if (address === null) throw new DriverError('the ring has no addresses');
  if (memory.regions.length === 0) {
    // QEMU leaves out memory that it maps privately.
    throw new FrontendError(
      'the VMM shares no guest memory: add share=on to its memory backend and restart the VM',
    );
  }
  const packed = hasFeature(features, VirtioFeature.VIRTIO_F_RING_PACKED);
  // virtio 1.3, 2.7: "Queue Size is always a power of 2"; a packed ring has no such rule (2.8).
  if (!packed && (size & (size - 1)) !== 0) throw new DriverError(`queue size ${size} is not a power of 2`);
  const part = (name: string, userAddr: bigint, lenBytes: number, align: bigint): GuestSlice => {
    const where = `${name} of ${lenBytes} bytes at 0x${userAddr.toString(16)}`;
    if (userAddr % align !== 0n) throw new DriverError(`${where} is not aligned to ${align}`);
    const slice = memory.resolveUser(userAddr, lenBytes);
    if (slice === undefined) throw new OutsideError(`${where} is outside the memory that the VMM shares`);
    return slice;
  };
  const layout: RingLayout = {
    size,
    memory,
    position,
    eventIdx: hasFeature(features, VirtioFeature.VIRTIO_F_EVENT_IDX),
    indirect: hasFeature(features, VirtioFeature.VIRTIO_F_INDIRECT_DESC),
    descriptors: part(
      'descriptors',
      address.descriptor,
      packed ? packedRingBytes(size) : descTableBytes(size),
      16n,
    ),
    driver: part(
      'driver area',
      address.available,
      packed ? EVENT_SUPPRESSION_BYTES : availRingBytes(size),
      packed ? 4n : 2n,
    ),
    device: part('device area', address.used, packed ? EVENT_SUPPRESSION_BYTES : usedRingBytes(size), 4n),
    onWrite: (area, offset, lenBytes) => onWrite(layout[area], offset, lenBytes),
  };
  return packed ? new PackedQueue(layout) : new SplitQueue(layout);
}
