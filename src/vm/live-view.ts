/** A VM as the page shows it, several times a minute: less than the whole of it, and cheap. */
import type { LiveVm } from '../../protocol/control/live.js';
import { sentence } from './diagnosis.js';
import { KINDS } from './kinds.js';
import type { Vm } from './vm.js';

/** `policy`: the part of it that the policy knows. */
export function liveView(
  vm: Vm,
  policy: Pick<LiveVm, 'band' | 'mode' | 'force' | 'workingSetBytes'>,
): LiveVm {
  const { targetBytes, actualBytes, actualUnknown, stats } = vm.figures;
  const { diagnosis } = vm;
  const [lead] = vm.devices;
  return {
    name: vm.name,
    kind: KINDS[lead?.kind ?? 'balloon'].over,
    state: lead?.figures.state ?? 'connected',
    ...policy,
    inhibited: vm.inhibited,
    ramBytes: vm.ramBytes,
    targetBytes,
    actualBytes,
    actualUnknown,
    cacheBytes: vm.playing('cache')?.figures.actualBytes ?? null,
    allocatedBytes: vm.allocatedBytes,
    availableBytes: stats?.values.get('VIRTIO_BALLOON_S_AVAIL') ?? null,
    refilledBytes: vm.playing('balloon')?.absence?.refilledBytes ?? 0,
    verdict: diagnosis && sentence(diagnosis),
  };
}
