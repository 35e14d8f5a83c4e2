/** What the limits of a VM's cgroup should be, by numbers alone. */
import { byField, LIMITS, type LimitField } from '../../protocol/control/limits.js';
import { isAbove, type Limit } from '../host/cgroup.js';

/** What decides how much memory a guest may use without anybody being asked. */
export interface GuestUse {
  /** The most memory that the guest can have without any word of the VMM, such as all that a virtio-mem device could plug. */
  ramBytes: number;
  targetBytes: number;
  /** In the balloon, and discarded. */
  discardedBytes: number;
  /** The driver runs, and must tell before it uses a page of the balloon again. */
  tellsFirst: boolean;
  /** Guest memory is files, which count as shmem; false: it may be memory of the VMM itself. */
  sharesMemory: boolean;
}

/** A device's part of it. */
export type DeviceUse = Omit<GuestUse, 'ramBytes'>;

/** The use of a guest that has no device. */
export const NOTHING_USED: DeviceUse = {
  targetBytes: 0,
  discardedBytes: 0,
  tellsFirst: false,
  sharesMemory: true,
};

/** Limits are multiples of this: a guest that takes back page by page does not cost a system call each. */
export const STEP_BYTES = 16 * 2 ** 20;
/** A guest that runs with RAM of its own size needs page tables here, at most 1/512 of it twice (VMM and KVM). */
const LEAST_HEADROOM_BYTES = 64 * 2 ** 20;
const HEADROOM_PART = 1 / 64;

/**
 * What the guest may have in use at this moment or, once it hears of its target, the next. A page counts until it is
 * discarded; a driver that need not tell may use all it has, whatever is in the balloon.
 */
export function mayUseBytes({
  ramBytes,
  targetBytes,
  discardedBytes,
  tellsFirst,
}: Omit<GuestUse, 'sharesMemory'>): number {
  return tellsFirst ? Math.max(0, ramBytes - Math.min(targetBytes, discardedBytes)) : ramBytes;
}

/**
 * Memory that is charged to the VMM and no guest's: by the cgroup's memory.stat. Guest memory is shmem, or on
 * hugetlbfs and counted nowhere; where it is not shared, it may be anonymous as well. Memory of that kind beyond what the guest
 * may use is the VMM's. Page cache is not counted, as it makes way by itself.
 */
export function ownBytes(
  stat: Readonly<Record<string, number>>,
  mayUse: number,
  sharesMemory = true,
): number {
  const of = (name: string): number => stat[name] ?? 0;
  const parts = ['kernel_stack', 'pagetables', 'sec_pagetables', 'percpu', 'vmalloc', 'slab'];
  // `kernel` holds the parts, since Linux 5.18.
  const kernel = stat['kernel'] ?? parts.reduce((sum, name) => sum + of(name), 0);
  const [vmms, guests] = sharesMemory ? [of('anon'), of('shmem')] : [0, of('anon') + of('shmem')];
  return vmms + kernel + of('sock') + Math.max(0, guests - mayUse);
}

/**
 * The limits of `follow`. Beyond what the guest may use and what the VMM was measured to use, each leaves room for what
 * comes between two looks; memory.max leaves twice as much, so that a VM that grows is slowed down before it is killed.
 */
export function followLimits(mayUse: number, own: number, ramBytes: number): Record<LimitField, number> {
  const headroom = LEAST_HEADROOM_BYTES + ramBytes * HEADROOM_PART;
  return byField((name) => inSteps(mayUse + own + LIMITS[name].headrooms * headroom));
}

/**
 * Where a limit that follows goes from `now`: up at once, down only as far as nothing that is charged has to be
 * reclaimed for it: following takes nothing away by force.
 */
export function nextLimit(now: Limit, wanted: number, currentBytes: number): Limit {
  if (!isAbove(now, wanted)) return wanted;
  const floor = Math.max(wanted, inSteps(currentBytes + STEP_BYTES));
  return isAbove(now, floor) ? floor : now;
}

function inSteps(bytes: number): number {
  return Math.ceil(bytes / STEP_BYTES) * STEP_BYTES;
}
