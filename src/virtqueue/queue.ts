/**
 * Virtqueues in guest memory, split and packed, as the device sees them. A Vring (src/vhost-user) opens one when its driver
 * starts, and calls, for each drain: pop() (split-queue or packed-queue, with ring-views and indirect tables; a chain comes
 * out), then a device (device.ts is its interface, src/balloon has the devices) handles the chain, then the chain is given
 * back and published. Nothing here knows of sockets, of balloons or of other rings.
 */
import type { GuestMemory, GuestSlice } from '../memory/guest-memory.js';
import type { Chain } from './chain.js';

/**
 * The device's side of a virtqueue. Chains are popped and given back in order, each exactly once; what is given
 * back becomes visible to the driver by publish(). Every method that reads the ring throws DriverError when it
 * breaks the specification.
 */
export interface Queue {
  /** The next chain the driver made available, or null. One that it throws for is given back by publish(), last. */
  pop(): Chain | null;
  /** Gives a chain back with the number of bytes written into it; not yet visible. */
  addUsed(chain: Chain, writtenBytes: number): void;
  /** Makes all that was given back visible. Returns whether the driver wants a call for it. */
  publish(): boolean;
  /** Asks for a kick at the next chain. Returns true when one came in between: pop again. */
  armNotify(): boolean;
  /** Chains may follow soon: no kick is needed. */
  disarmNotify(): void;
  /** What GET_VRING_BASE answers: where a later start resumes, with chains not given back seen again. */
  readonly base: number;
  /** Detaches from guest memory. */
  close(): void;
}

/** Where the parts of a ring lie, and what was negotiated for it. */
export interface RingLayout {
  size: number;
  /** Split: descriptor table. Packed: descriptor ring. */
  descriptors: GuestSlice;
  /** Split: available ring. Packed: driver event suppression. */
  driver: GuestSlice;
  /** Split: used ring. Packed: device event suppression. */
  device: GuestSlice;
  eventIdx: boolean;
  indirect: boolean;
  /**
   * Where a packed ring stands, and where it will once what is being published is: two bases as SET_VRING_BASE gives
   * them. They outlive the process, since nothing in guest memory tells. Split rings have their used index.
   */
  position: Uint32Array;
  memory: GuestMemory;
  /** Told of each write into guest memory (offsets in the part's own bytes), for the dirty log. */
  onWrite: ((part: 'descriptors' | 'device', offset: number, lenBytes: number) => void) | null;
}
