/** A VM as the control API shows it. */
import type { BalloonView, VmView } from '../../protocol/control/schema.js';
import { sentence } from './diagnosis.js';
import { orderViews, pauseView } from './orders.js';
import type { Vm } from './vm.js';

const NO_BALLOON: BalloonView = {
  targetBytes: 0,
  actualBytes: 0,
  pendingBytes: 0,
  discardedBytesTotal: 0,
  inflatedBytesTotal: 0,
  deflatedBytesTotal: 0,
  reportedBytesTotal: 0,
  discardSecondsTotal: 0,
};

/** The whole of a VM. `policy`: what the policy says of it. `devices`: as if the VM had these alone. */
export function vmView(vm: Vm, policy: VmView['policy'], devices = vm.devices): VmView {
  const [lead] = devices;
  const balloon = devices.find(({ kind }) => kind === 'balloon');
  const cache = devices.find(({ kind }) => kind === 'cache-balloon');
  const { diagnosis, ramBytes } = vm;
  const stats = balloon?.figures.stats ?? cache?.figures.stats ?? null;
  return {
    name: vm.name,
    pid: vm.pid,
    state: lead?.figures.state ?? 'connected',
    ramBytes,
    balloon: balloon?.balloonView() ?? NO_BALLOON,
    cache: cache?.balloonView() ?? null,
    inhibited: vm.inhibited,
    verdict: diagnosis && sentence(diagnosis),
    diagnosis,
    features: [...new Set(devices.flatMap(({ features }) => features))],
    stats: stats && { ageSeconds: stats.ageSeconds, ...Object.fromEntries(stats.values) },
    cgroup: vm.limits.view(),
    limits: vm.limits.limitsView(),
    policy,
    orders: [
      ...orderViews(vm.name, vm.orders, vm.wishes, ramBytes),
      ...(vm.policyPaused === null ? [] : [pauseView(vm.policyPaused)]),
    ],
    statsIntervalSeconds: vm.statsIntervalSeconds,
  };
}
