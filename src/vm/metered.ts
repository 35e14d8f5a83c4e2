/** A VM as metrics measure it. */
import type { MeteredVm } from '../ops/metrics.js';
import { VmMeters } from '../ops/vm-meters.js';
import type { AnyDevice } from './any-device.js';
import { vmView } from './view.js';
import type { Vm } from './vm.js';

/** What is measured of a VM, or of one of its devices. */
export function metered(vm: Vm, devices: readonly AnyDevice[] = vm.devices): MeteredVm {
  const [first, ...others] = devices;
  // Nearly all VMs have one device, and a scrape reads a thousand of them.
  const meters = first !== undefined && others.length === 0 ? first.meters : new VmMeters();
  if (meters !== first?.meters) for (const device of devices) meters.add(device.meters);
  return {
    name: vm.name,
    meters,
    allocatedBytes: vm.allocatedBytes,
    pressure: vm.cgroup.pressure(),
    view: () => vmView(vm, null, devices),
  };
}
