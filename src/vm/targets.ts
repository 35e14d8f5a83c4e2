/** The target of a device by the orders for its VM. */
import type { TargetRequest } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { amountOf } from '../policy/settings.js';
import { PARTS, type Part } from './kinds.js';
import type { Orders, Wishes } from './orders.js';
import { isSame } from './ram.js';

/** The word by which a target holds. */
export type TargetBy = 'operator' | 'configuration' | 'policy';

/** The memory of a guest, and what it cannot live without, in bytes. */
interface GuestSize {
  readonly ramBytes: number;
  readonly leastBytes: number;
}

interface TargetCut {
  /** The reason, and the target that follows from it. */
  readonly says: string;
  readonly askedBytes: number;
  /** The target instead. */
  readonly bytes: number;
}

interface WantedTarget {
  readonly bytes: number;
  readonly by: TargetBy;
  /** The reason why this is not the size that was ordered, and that size in bytes; null: it is. */
  readonly cut: { readonly why: string; readonly askedBytes: number } | null;
}

/** The part of the device that a request is for, and its size in bytes. */
export function askedTarget(target: TargetRequest): { part: Part; bytes: number } {
  if ('cacheLimitBytes' in target) return { part: 'cache', bytes: target.cacheLimitBytes };
  return { part: 'balloon', bytes: 'memoryBytes' in target ? target.memoryBytes : target.balloonBytes };
}

/** The memory that the request leaves the guest; all of it where the request may take as much as it says. */
export function keptBytes(target: TargetRequest, ramBytes: number): number {
  if ('cacheLimitBytes' in target || target.force === true) return ramBytes;
  return 'memoryBytes' in target ? target.memoryBytes : ramBytes - target.balloonBytes;
}

/** Null: nothing is ordered, or the guest's memory is not known yet (`ramBytes` 0), so that no size can be too much. */
export function wantedTarget(
  part: Part,
  { ramBytes, leastBytes }: GuestSize,
  { target, cacheLimit }: Orders,
  wishes: Wishes,
): WantedTarget | null {
  if (ramBytes === 0) return null;
  if (PARTS[part].sizesItself) {
    if (cacheLimit === undefined) return null;
    const bytes = Math.min(cacheLimit.bytes, ramBytes);
    return { bytes, by: 'operator', cut: cutTo(bytes, cacheLimit.bytes, { ramBytes, leastBytes }) };
  }
  if (target !== undefined) {
    const { of, bytes: asked, forced } = target;
    const most = ramBytes - (forced === true ? 0 : leastBytes);
    const bytes = Math.min(Math.max(0, of === 'balloon' ? asked : ramBytes - asked), most);
    const inWords = of === 'balloon' ? bytes : ramBytes - bytes;
    return { bytes, by: 'operator', cut: cutTo(inWords, asked, { ramBytes, leastBytes }) };
  }
  if (wishes.target === null) return null;
  const asked = Math.round(amountOf(wishes.target, ramBytes));
  const keeps = Math.max(asked, leastBytes);
  // A target of the configuration is for VMs of any size: one that is small has all of its memory.
  const cut = asked < leastBytes ? cutTo(keeps, asked, { ramBytes, leastBytes }) : null;
  return { bytes: Math.max(0, ramBytes - keeps), by: 'configuration', cut };
}

function cutTo(bytes: number, askedBytes: number, { ramBytes, leastBytes }: GuestSize): WantedTarget['cut'] {
  if (bytes === askedBytes || (bytes === ramBytes && isSame(bytes, askedBytes))) return null;
  const [ram, least] = [formatSize(ramBytes), formatSize(leastBytes)];
  const why = askedBytes > ramBytes ? `the guest has only ${ram}` : `the guest needs ${least} of its ${ram}`;
  return { why, askedBytes };
}

export interface TargetedDevice {
  readonly part: Part;
  readonly figures: { readonly targetBytes: number };
  setTarget(bytes: number, by: TargetBy): void;
}

/**
 * Brings the target of a device to what is ordered, where the guest's memory is known, and below that memory. `lapsed`: an
 * order was taken back, and no policy sets a target in its place: without another order the guest has all of its memory again.
 * Returns why that is not what was ordered, in words; null: it is.
 */
export function settleTarget(
  device: TargetedDevice,
  guest: GuestSize,
  { orders, wishes, lapsed }: { orders: Orders; wishes: Wishes; lapsed: boolean },
): TargetCut | null {
  const { ramBytes } = guest;
  const wanted = wantedTarget(device.part, guest, orders, wishes);
  if (wanted === null) {
    if (lapsed) device.setTarget(0, 'operator');
    else if (ramBytes > 0 && device.figures.targetBytes > ramBytes) device.setTarget(ramBytes, 'policy');
    return null;
  }
  device.setTarget(wanted.bytes, wanted.by);
  return cutOf(device.part, wanted);
}

/** Why the target of that part is not what was ordered, in words; null: it is. */
export function cutOf(part: Part, { bytes, cut }: WantedTarget): TargetCut | null {
  if (cut === null) return null;
  const { askedBytes, why } = cut;
  return { askedBytes, bytes, says: `${why}: the ${part} target is ${formatSize(bytes)}` };
}
