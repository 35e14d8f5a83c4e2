/** Reads VMs into the table that a policy plans for. */
import {
  FIRM,
  LIMITABLE,
  MOVABLE,
  SELF_SIZED,
  SIZED,
  TAKEABLE,
  UNASKABLE,
  vmTable,
  type VmTable,
} from '../policy/inputs.js';
import type { Entitlement, PolicySettings } from '../policy/settings.js';
import type { GovernedVm, Measured, SeenVm } from './governed-vm.js';
import { keptInPool } from './pooled.js';
import { freshStat, VmReadings } from './readings.js';
import type { Troubles } from './troubles.js';

/** Fills tables, and keeps a VM's cgroup and counters at hand from one table to the next. */
export class TableReader {
  readonly #onPressure: () => void;
  readonly #troubles: Troubles;
  readonly #readings = new Map<string, VmReadings>();

  /** `onPressure` is called when tasks of some VM wait for memory. */
  constructor(onPressure: () => void, troubles: Troubles) {
    this.#onPressure = onPressure;
    this.#troubles = troubles;
  }

  /** The table of these VMs, one row each in their order. */
  read(vms: readonly SeenVm[], settings: PolicySettings): VmTable {
    const table = vmTable(vms.length);
    vms.forEach(({ vm, figures }, row) => {
      this.#readEntitlement(table, row, vm, settings);
      const measured = { figures, ramBytes: vm.ramBytes, allocatedBytes: vm.allocatedBytes };
      readSizes(table, row, measured);
      this.#readUse(table, row, vm, measured, settings);
    });
    return table;
  }

  forget(name: string): void {
    this.#readings.get(name)?.close();
    this.#readings.delete(name);
  }

  close(): void {
    for (const name of [...this.#readings.keys()]) this.forget(name);
  }

  #readEntitlement(table: VmTable, row: number, { name, ramBytes }: GovernedVm, settings: PolicySettings) {
    const entitlement: Entitlement = settings.entitlement(name, ramBytes);
    if (entitlement.contradictory) {
      this.#troubles.tell(
        `floor of ${name}`,
        `the min of ${name} is above its max, so the policy takes the max for both: mend [[vm]]`,
      );
    }
    table.band[row] = entitlement.band;
    table.ramBytes[row] = ramBytes;
    table.minBytes[row] = entitlement.minBytes;
    table.maxBytes[row] = entitlement.maxBytes;
    table.weight[row] = entitlement.weight;
    table.flags[row] = entitlement.size === 'working-set' ? SIZED : 0;
  }

  /** The memory that the VM uses, by the host and by its guest, and the flags that follow from what can be read. */
  #readUse(table: VmTable, row: number, vm: GovernedVm, measured: Measured, settings: PolicySettings): void {
    const { figures, allocatedBytes, ramBytes } = measured;
    const { state, actualUnknown, actualBytes, inhibited, stats, pool, cache, askable } = figures;
    const readings = this.#readingsOf(vm);
    // The memory of a VM in a pool is charged to no memory cgroup: its VMM's cgroup tells of the host's RAM alone.
    const mayUseBytes = figures.sharesMemory ? null : ramBytes - (state === 'running' ? actualBytes : 0);
    const cgroup = pool === null ? readings.memory(mayUseBytes) : null;
    // A balloon of memory in a pool gives huge pages only by chance, and beside a page cache balloon the guest sizes itself.
    const sized = pool === null && cache === null && askable ? (table.flags[row] ?? 0) & SIZED : 0;
    table.flags[row] =
      sized |
      (state === 'running' && !actualUnknown && !vm.manual ? MOVABLE : 0) |
      (inhibited === null && keptInPool(measured, settings) === null ? TAKEABLE : 0) |
      (cgroup !== null && vm.limitable ? LIMITABLE : 0) |
      (cache === null ? 0 : SELF_SIZED) |
      (askable ? 0 : UNASKABLE) |
      (figures.deflatesOnOom ? 0 : FIRM);
    // The cgroup may be charged for more, such as page cache, or for less: memory on hugetlbfs, or touched by others.
    const overheadBytes = cgroup?.overheadBytes ?? 0;
    table.overheadBytes[row] = overheadBytes;
    table.slowness[row] = figures.slowness;
    const currentBytes = Math.max(cgroup?.currentBytes ?? 0, allocatedBytes + overheadBytes);
    table.currentBytes[row] = currentBytes;
    const availableBytes = readings.availableBytes(stats, actualBytes, currentBytes - overheadBytes);
    table.availableBytes[row] = availableBytes;
    table.steadyBytes[row] = readings.steadyBytes(availableBytes, actualBytes);
    table.statsAgeSeconds[row] = readings.statsAgeSeconds(stats);
    table.freeBytes[row] = freshStat(stats, 'VIRTIO_BALLOON_S_MEMFREE');
    table.stallPercent[row] = Math.max(cgroup?.pressurePercent || 0, readings.stallPercent(stats) || 0);
  }

  #readingsOf({ name, cgroup }: GovernedVm): VmReadings {
    let readings = this.#readings.get(name);
    // A VM that was switched off and on between two ticks has another cgroup.
    if (readings?.cgroup !== cgroup) {
      readings?.close();
      readings = new VmReadings(cgroup, this.#onPressure);
      this.#readings.set(name, readings);
    }
    return readings;
  }
}

/** Leaves all VMs of the table as they are. */
export function pauseAll({ flags }: VmTable): void {
  flags.forEach((bits, row) => (flags[row] = bits & ~MOVABLE));
}

function readSizes(table: VmTable, row: number, { ramBytes, allocatedBytes, figures }: Measured): void {
  const { targetBytes, actualBytes, cache } = figures;
  table.targetBytes[row] = targetBytes;
  // The balloon of a driver that stopped may be the guest's again, as after a reset.
  table.actualBytes[row] = figures.state === 'running' ? actualBytes : 0;
  table.cacheLimitBytes[row] = cache?.targetBytes ?? 0;
  // The amount that the guest says to hold, as far as it is not on the host.
  const absent = Math.max(0, ramBytes - allocatedBytes - actualBytes);
  table.cachedBytes[row] = cache === null ? 0 : Math.min(cache.actualBytes, absent);
}
