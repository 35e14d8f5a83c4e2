/** A VM as the control API shows it. */
import type { BalloonView, VmOrder, VmView } from '../../protocol/control/schema.js';
import type { AnyDevice } from './any-device.js';
import { sentence } from './diagnosis.js';
import type { StatsFigures } from './figures.js';
import { KINDS, type Part } from './kinds.js';
import { orderViews, pauseView } from './orders.js';
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
    orders: [...ordersOf(vm), ...(vm.policyPaused === null ? [] : [pauseView(vm.policyPaused)])],
    statsIntervalSeconds: vm.statsIntervalSeconds,
  };
}

/** The orders for this VM alone. */
export function ordersOf(vm: Vm): VmOrder[] {
  const { name, ramBytes } = vm;
  const has = (part: Part): boolean => vm.playing(part) !== undefined;
  const cut = (part: Part): string | null => vm.sizes.cut(part);
  return orderViews({ name, ramBytes, has, cut, inhibits: vm.uninhibitable === null }, vm.orders, vm.wishes);
}

/** The statistics of the first device that has any. */
function firstStats(devices: readonly AnyDevice[]): StatsFigures | null {
  for (const { figures } of devices) if (figures.stats !== null) return figures.stats;
  return null;
}
