/** A VM as the control API shows it. */
import type { BalloonView, TargetRequest, VmOrder, VmView } from '../../protocol/control/schema.js';
import type { AnyDevice } from './any-device.js';
import { sentence } from './diagnosis.js';
import type { StatsFigures } from './figures.js';
import { KINDS, type Part } from './kinds.js';
import { orderViews, pauseView } from './orders.js';
import { tryTarget } from './tried-target.js';
import type { Vm } from './vm.js';

const NO_BALLOON: BalloonView = {
  targetBytes: 0,
  actualBytes: 0,
  actualUnknown: false,
  pendingBytes: 0,
  refilledBytes: null,
  pinnedBytes: null,
  discardedBytesTotal: 0,
  inflatedBytesTotal: 0,
  deflatedBytesTotal: 0,
  reportedBytesTotal: 0,
  discardSecondsTotal: 0,
};

/** The whole of a VM. `policy`: what the policy says of it. `devices`: as if the VM had these alone. */
export function vmView(vm: Vm, policy: VmView['policy'], devices = vm.devices): VmView {
  const [lead] = devices;
  const viewOf = (part: Part): BalloonView | undefined =>
    devices.find((device) => device.part === part)?.balloonView();
  const { diagnosis, ramBytes } = vm;
  const stats = firstStats(devices);
  return {
    name: vm.name,
    pid: vm.pid,
    kind: KINDS[lead?.kind ?? 'balloon'].over,
    socket: lead?.socketPath ?? null,
    state: lead?.figures.state ?? 'connected',
    ramBytes,
    memory: {
      sharedBytes: vm.sharedBytes,
      ramBytes,
      discardableBytes: vm.discardableBytes,
      allocatedBytes: vm.allocatedBytes,
    },
    balloon: viewOf('balloon') ?? NO_BALLOON,
    cache: viewOf('cache') ?? null,
    queuesLacking: lead?.queuesLacking ?? null,
    inhibited: vm.inhibited,
    verdict: diagnosis && sentence(diagnosis),
    diagnosis,
    features: [...new Set(devices.flatMap(({ features }) => features))],
    stats: stats && { ageSeconds: stats.ageSeconds, ...Object.fromEntries(stats.values) },
    cgroup: vm.limits.view(),
    limits: vm.limits.limitsView(),
    policy,
    orders: [...ordersOf(vm), ...pauseOf(vm)],
    statsIntervalSeconds: vm.statsIntervalSeconds,
  };
}

/** The same, with the target and the orders that the VM would have. Throws RefusedError. */
export function vmTried(view: VmView, vm: Vm, target: TargetRequest): VmView {
  const tried = tryTarget(vm, target);
  const targetBytes = tried.bytes;
  const cut = (part: Part): string | null => (part === tried.part ? tried.cut : vm.sizes.cut(part));
  return {
    ...view,
    ...(tried.part === 'balloon' && { balloon: { ...view.balloon, targetBytes } }),
    ...(tried.part === 'cache' && view.cache !== null && { cache: { ...view.cache, targetBytes } }),
    orders: [...ordersOf(vm, tried.orders, cut), ...pauseOf(vm)],
  };
}

/** The orders for this VM alone. */
export function ordersOf(
  vm: Vm,
  orders = vm.orders,
  cut = (part: Part): string | null => vm.sizes.cut(part),
): VmOrder[] {
  const { name, ramBytes } = vm;
  const has = (part: Part): boolean => vm.playing(part) !== undefined;
  return orderViews({ name, ramBytes, has, cut, inhibits: vm.uninhibitable === null }, orders, vm.wishes);
}

function pauseOf({ policyPaused }: Vm): VmOrder[] {
  return policyPaused === null ? [] : [pauseView(policyPaused)];
}

/** The statistics of the first device that has any. */
function firstStats(devices: readonly AnyDevice[]): StatsFigures | null {
  for (const { figures } of devices) if (figures.stats !== null) return figures.stats;
  return null;
}
