/** A VM as the page shows it, several times a minute: less than the whole of it, and cheap. */
import type { LiveTick } from '../../protocol/control/live.js';
import { sentence } from './diagnosis.js';
import type { Vm } from './vm.js';

/** `band`: of the policy; null: the policy has nothing to do with the VM. */
export function liveView(vm: Vm, band: string | null): LiveTick['vms'][number] {
  const { targetBytes, actualBytes, actualUnknown } = vm.figures;
  const { diagnosis } = vm;
  return {
    name: vm.name,
    state: vm.devices[0]?.figures.state ?? 'connected',
    band,
    ramBytes: vm.ramBytes,
    targetBytes,
    actualBytes,
    actualUnknown,
    cacheBytes: vm.playing('cache')?.figures.actualBytes ?? null,
    allocatedBytes: vm.allocatedBytes,
    verdict: diagnosis && sentence(diagnosis),
  };
}
