/** How much memory a guest has, by all that is known of that. */
import { BalloonFeature, STAT_NAMES } from '../../protocol/virtio/balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { formatSize } from '../../protocol/control/size.js';
import { PAGE_BYTES } from '../memory/region.js';
import { peerMemory } from '../host/peer.js';
import type { Emit } from '../ops/event-log.js';

interface MemoryFacts {
  /** The regions that the VMM shares, in bytes; 0: it has shared none yet. */
  readonly sharedBytes: number;
  /** The memory that the command line of the VMM gives the guest; null: it does not say. */
  readonly assignedBytes: number | null;
  /** The guest's own word, its balloon included; null: there is none. */
  readonly toldBytes: number | null;
}

/** A guest's kernel counts neither itself nor its tables of pages, nor memory that it sets aside for a crash. */
const KERNEL_PART = 1 / 8;
const KERNEL_BYTES = 64 * 2 ** 20;
/** What VMMs leave out of the memory that they share for the firmware of a PC is less: 384 KiB under QEMU. */
const HOLE_BYTES = 2 ** 20;
/** A guest's own word that differs by less from the one before it is the same. */
const SAME_PART = 1 / 50;

/**
 * The memory of the guest in bytes, the balloon included; 0 where nothing is known of it. `before`: the answer before this one.
 *
 * Not all that is shared is memory of the guest: a virtio-mem device shares all that it could plug, nvdimm and ivshmem share
 * disks and buffers. Nor is all of its memory shared: that of a NUMA node or DIMM may be private. So the guest's own word
 * chooses between the two sizes that are known exactly, and counts itself where it fits neither. It never counts for more
 * than the larger one: a guest that lies would be given the memory of others.
 */
export function guestRam({ sharedBytes, assignedBytes, toldBytes }: MemoryFacts, before: number): number {
  if (sharedBytes === 0) return assignedBytes ?? 0;
  if (toldBytes === null || toldBytes === 0) return assignedBytes ?? sharedBytes;
  const assigned = assignedBytes ?? sharedBytes;
  const sizes = isSame(sharedBytes, assigned) ? [assigned] : [sharedBytes, assigned].sort((a, b) => a - b);
  const fitting = sizes.find(
    (size) => toldBytes <= size && size - toldBytes <= size * KERNEL_PART + KERNEL_BYTES,
  );
  if (fitting !== undefined) return fitting;
  const told = Math.min(toldBytes, Math.max(...sizes));
  return Math.abs(told - before) <= before * SAME_PART ? before : told;
}

/**
 * The memory that a guest says it has, in bytes, the `heldPages` of its balloon included; null: it has not said. Linux takes
 * the pages of a balloon off its total unless the driver may give them back by itself (drivers/virtio/virtio_balloon.c,
 * adjust_managed_page_count).
 */
export function toldRam(
  stats: ReadonlyMap<string, number> | null,
  features: FeatureBits,
  heldPages: number,
): number | null {
  const total = stats?.get(STAT_NAMES[5]);
  if (total === undefined) return null;
  return hasFeature(features, BalloonFeature.VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
    ? total
    : total + heldPages * PAGE_BYTES;
}

/** Whether both are the size of the same memory, a hole for the firmware apart. */
export function isSame(a: number, b: number): boolean {
  return Math.abs(a - b) < HOLE_BYTES;
}

function clamp(bytes: number, mostBytes: number): number {
  return Math.min(Math.max(0, bytes), mostBytes);
}

/** The memory of one guest, as it was found last. */
export class Ram {
  bytes = 0;
  /** Whether the size is the guest's word, or its VMM's, and not a guess by what is shared. */
  isKnown = false;
  /** The part of it that the guest's kernel keeps for itself and does not count. */
  kernelBytes = 0;
  /** Whether the VMM shared any memory when it was looked at last. */
  isShared = false;
  readonly #pid: number;
  readonly #emit: Emit;
  /** Undefined: the command line was not looked at yet. */
  #assignedBytes: number | null | undefined;

  constructor(pid: number, emit: Emit) {
    this.#pid = pid;
    this.#emit = emit;
  }

  /**
   * Finds out anew. Returns whether the memory, or what its kernel keeps of it, is another size than before. `vmmBytes`: the word
   * of the VMM, which counts; null: it says nothing.
   */
  measure(sharedBytes: number, toldBytes: number | null, vmmBytes: number | null): boolean {
    if (this.#assignedBytes === undefined) this.#assignedBytes = peerMemory(this.#pid);
    const facts = { sharedBytes, assignedBytes: this.#assignedBytes, toldBytes };
    const bytes = vmmBytes ?? guestRam(facts, this.bytes);
    this.isShared = sharedBytes > 0;
    const isTold = toldBytes !== null && toldBytes > 0;
    this.isKnown = isTold || (vmmBytes ?? this.#assignedBytes) !== null;
    const keeps = isTold ? clamp(bytes - toldBytes, bytes * KERNEL_PART + KERNEL_BYTES) : this.kernelBytes;
    const isSame = keeps === this.kernelBytes;
    this.kernelBytes = keeps;
    if (bytes === this.bytes) return !isSame;
    this.bytes = bytes;
    if (sharedBytes === 0 && vmmBytes === null) return true;
    const isAll = bytes === sharedBytes || sharedBytes === 0;
    const other = isAll ? '' : `; the VMM shares ${formatSize(sharedBytes)}`;
    const fields = { ramBytes: bytes, sharedBytes };
    this.#emit('ram-changed', `the guest has ${formatSize(bytes)} of memory${other}`, fields);
    return true;
  }
}
