/** The target of a device by the orders for its VM. */
import type { TargetRequest } from '../../protocol/control/schema.js';
import { formatSize } from '../../protocol/control/size.js';
import { amountOf } from '../policy/settings.js';
import type { Emit } from '../ops/event-log.js';
import type { TargetBy } from './device-owner.js';
import type { VmDevice } from './device.js';
import { PARTS, type Part } from './kinds.js';
import type { Orders, Wishes } from './orders.js';

interface WantedTarget {
  readonly bytes: number;
  readonly by: TargetBy;
  /** The size that was ordered, where the VM has less memory; null: it has enough. */
  readonly tooMuchBytes: number | null;
}

/** The part of the device that a request is for, and its size in bytes. */
export function askedTarget(target: TargetRequest): { part: Part; bytes: number } {
  if ('cacheLimitBytes' in target) return { part: 'cache', bytes: target.cacheLimitBytes };
  return { part: 'balloon', bytes: 'memoryBytes' in target ? target.memoryBytes : target.balloonBytes };
}

/** Null: nothing is ordered, or the guest's memory is not known yet (`ramBytes` 0), so that no size can be too much. */
function wantedTarget(
  part: Part,
  ramBytes: number,
  { target, cacheLimit }: Orders,
  wishes: Wishes,
): WantedTarget | null {
  if (ramBytes === 0) return null;
  const clamped = (asked: number): WantedTarget => {
    const bytes = Math.min(asked, ramBytes);
    return { bytes, by: 'operator', tooMuchBytes: asked > ramBytes ? asked : null };
  };
  if (PARTS[part].sizesItself) return cacheLimit === undefined ? null : clamped(cacheLimit.bytes);
  if (target?.of === 'balloon') return clamped(target.bytes);
  if (target !== undefined) {
    const guest = clamped(target.bytes);
    return { ...guest, bytes: ramBytes - guest.bytes };
  }
  if (wishes.target === null) return null;
  const bytes = Math.max(0, ramBytes - Math.round(amountOf(wishes.target, ramBytes)));
  return { bytes, by: 'configuration', tooMuchBytes: null };
}

/** Brings the target of a device to what is ordered, where it can be told, and below the memory that the guest has. */
export function settleTarget(
  device: VmDevice,
  ramBytes: number,
  { orders, wishes, emit }: { orders: Orders; wishes: Wishes; emit: Emit },
): void {
  const wanted = wantedTarget(device.part, ramBytes, orders, wishes);
  if (wanted === null) {
    if (ramBytes > 0 && device.figures.targetBytes > ramBytes) device.setTarget(ramBytes, 'policy');
    return;
  }
  const { bytes, by, tooMuchBytes } = wanted;
  if (tooMuchBytes !== null && device.figures.targetBytes !== bytes) {
    emit('target-clamped', `the guest has only ${formatSize(ramBytes)}`, { askedBytes: tooMuchBytes });
  }
  device.setTarget(bytes, by);
}
