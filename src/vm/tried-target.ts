/** The effect that a target of an operator would have. */
import type { TargetRequest } from '../../protocol/control/schema.js';
import { wallNow } from '../os/clock.js';
import type { AnyDevice } from './any-device.js';
import type { Part } from './kinds.js';
import { withTarget, type Orders, type Wishes } from './orders.js';
import { noDevice, refuseTarget } from './refused-orders.js';
import { askedTarget, cutOf, wantedTarget } from './targets.js';

/** A VM as a target sees it. */
interface TargetedVm {
  readonly name: string;
  readonly ramBytes: number;
  readonly sizes: { readonly ramBytes: number; readonly leastBytes: number };
  readonly orders: Orders;
  readonly wishes: Wishes;
  playing(part: Part): AnyDevice | undefined;
}

interface TriedTarget {
  readonly part: Part;
  readonly orders: Orders;
  /** Why the target would not be what was ordered, in words; null: it would be. */
  readonly cut: string | null;
  /** The target of the device. */
  readonly bytes: number;
}

/** The device that an operator's target is for. Throws RefusedError where the VM cannot take the target. */
export function targeted(vm: TargetedVm, target: TargetRequest): AnyDevice {
  const { part } = askedTarget(target);
  const device = vm.playing(part);
  if (device === undefined) throw noDevice(vm.name, part);
  if (vm.ramBytes > 0) refuseTarget(vm.name, target, vm.sizes);
  return device;
}

/** The orders that there would be, and the target that would follow from them. Throws RefusedError. */
export function tryTarget(vm: TargetedVm, target: TargetRequest): TriedTarget {
  const { part, figures } = targeted(vm, target);
  const orders = withTarget(vm.orders, target, wallNow());
  const wanted = wantedTarget(part, vm.sizes, orders, vm.wishes);
  const cut = wanted === null ? null : (cutOf(part, wanted)?.says ?? null);
  return { part, orders, cut, bytes: wanted?.bytes ?? figures.targetBytes };
}
