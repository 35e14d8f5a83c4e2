/** The target of a device by the orders for its VM. */
import type { TargetRequest } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { amountOf } from '../policy/settings.js';
import type { Emit } from '../ops/event-log.js';
import type { TargetBy } from './device-owner.js';
import { PARTS, type Part } from './kinds.js';
import { leastGuestBytes } from './least-guest.js';
import type { Orders, Wishes } from './orders.js';

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
function wantedTarget(
  part: Part,
  ramBytes: number,
  { target, cacheLimit }: Orders,
  wishes: Wishes,
): WantedTarget | null {
  if (ramBytes === 0) return null;
  if (PARTS[part].sizesItself) {
    if (cacheLimit === undefined) return null;
    const bytes = Math.min(cacheLimit.bytes, ramBytes);
    return { bytes, by: 'operator', cut: cutTo(bytes, cacheLimit.bytes, ramBytes) };
  }
  if (target !== undefined) {
    const { of, bytes: asked, forced } = target;
    const most = ramBytes - (forced === true ? 0 : leastGuestBytes(ramBytes));
    const bytes = Math.min(Math.max(0, of === 'balloon' ? asked : ramBytes - asked), most);
    const inWords = of === 'balloon' ? bytes : ramBytes - bytes;
    return { bytes, by: 'operator', cut: cutTo(inWords, asked, ramBytes) };
  }
  if (wishes.target === null) return null;
  const keeps = Math.max(Math.round(amountOf(wishes.target, ramBytes)), leastGuestBytes(ramBytes));
  return { bytes: Math.max(0, ramBytes - keeps), by: 'configuration', cut: null };
}

function cutTo(bytes: number, askedBytes: number, ramBytes: number): WantedTarget['cut'] {
  if (bytes === askedBytes) return null;
  const ram = formatSize(ramBytes);
  const least = formatSize(leastGuestBytes(ramBytes));
  const why = askedBytes > ramBytes ? `the guest has only ${ram}` : `the guest needs ${least} of its ${ram}`;
  return { why, askedBytes };
}

interface TargetedDevice {
  readonly part: Part;
  readonly figures: { readonly targetBytes: number };
  setTarget(bytes: number, by: TargetBy): void;
}

/** Brings the target of a device to what is ordered, where it can be told, and below the memory that the guest has. */
export function settleTarget(
  device: TargetedDevice,
  ramBytes: number,
  { orders, wishes, emit }: { orders: Orders; wishes: Wishes; emit: Emit },
): void {
  const wanted = wantedTarget(device.part, ramBytes, orders, wishes);
  if (wanted === null) {
    if (ramBytes > 0 && device.figures.targetBytes > ramBytes) device.setTarget(ramBytes, 'policy');
    return;
  }
  const { bytes, by, cut } = wanted;
  if (cut !== null && device.figures.targetBytes !== bytes) {
    const said = `${formatSize(cut.askedBytes)} was ordered, and ${cut.why}: the balloon target is ${formatSize(bytes)}`;
    emit('target-clamped', said, { askedBytes: cut.askedBytes, targetBytes: bytes });
  }
  device.setTarget(bytes, by);
}
