import { LIMIT_NAMES, LIMITS } from '../../protocol/control/limits.js';
import type { BalloonView, VmView } from '../../protocol/control/schema.js';
import type { Pressure } from '../host/pressure.js';
import { STAT_NAMES } from '../../protocol/virtio/balloon.js';
import { wallNow } from '../os/clock.js';

/**
 * One fact of a VM that is measured. Its family is `balloond_vm_NAME`; where `total` is set there is also `balloond_NAME`,
 * the sum over all VMs. Counters in such a sum keep what VMs counted that are gone.
 */
interface VmFamily {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  readonly total: boolean;
  /** Null: there is nothing to say. */
  readonly read: (view: VmView, vm: Measured) => number | null;
}

/** What a view does not have, since it is looked at for this alone. */
export interface Measured {
  readonly allocatedBytes: number;
  /** Of its cgroup; null where there is none, or PSI is off. */
  readonly pressure: Pressure | null;
}

function row(
  name: string,
  type: VmFamily['type'],
  help: string,
  read: (view: VmView, vm: Measured) => number | null | undefined,
  total = true,
): VmFamily {
  return { name, type, help, total, read: (view, vm) => read(view, vm) ?? null };
}

function own(
  name: string,
  type: VmFamily['type'],
  help: string,
  read: (view: VmView) => number | null | undefined,
): VmFamily {
  return row(name, type, help, read, false);
}

function limitRows(): VmFamily[] {
  return LIMIT_NAMES.map((limit) => {
    const { file, field } = LIMITS[limit];
    const name = `cgroup_${file.replace('memory.', '').replaceAll('.', '_')}_bytes`;
    const help = `${file} of the cgroup, +Inf without a limit`;
    return own(name, 'gauge', help, ({ cgroup }) => cgroup && (cgroup[field] ?? Infinity));
  });
}

function seconds(micros: number | undefined): number | undefined {
  return micros === undefined ? undefined : micros / 1e6;
}

function balloonRows(prefix: string, what: string, of: (view: VmView) => BalloonView | null): VmFamily[] {
  return [
    row(
      `${prefix}_target_bytes`,
      'gauge',
      `Memory that the guest is asked to give up to ${what}`,
      (view) => of(view)?.targetBytes,
    ),
    row(`${prefix}_actual_bytes`, 'gauge', `Memory that the guest says it has given up to ${what}`, (view) =>
      of(view)?.actualUnknown === true ? null : of(view)?.actualBytes,
    ),
    row(
      `${prefix}_pending_bytes`,
      'gauge',
      `Memory given up to ${what} and not discarded yet`,
      (view) => of(view)?.pendingBytes,
    ),
    row(
      `${prefix}_discarded_bytes_total`,
      'counter',
      `Memory discarded for ${what}`,
      (view) => of(view)?.discardedBytesTotal,
    ),
    row(
      `${prefix}_inflated_bytes_total`,
      'counter',
      `Memory that the guest put into ${what}`,
      (view) => of(view)?.inflatedBytesTotal,
    ),
    row(
      `${prefix}_deflated_bytes_total`,
      'counter',
      `Memory that the guest took back from ${what}`,
      (view) => of(view)?.deflatedBytesTotal,
    ),
    row(
      `${prefix}_reported_bytes_total`,
      'counter',
      `Free memory that the guest reported to ${what}`,
      (view) => of(view)?.reportedBytesTotal,
    ),
  ];
}

type StatName = (typeof STAT_NAMES)[number];

/** All that the specification names. What a guest sends beyond them has no end, and is not served. */
const GUEST: Record<StatName, readonly [name: string, type: VmFamily['type']]> = {
  VIRTIO_BALLOON_S_SWAP_IN: ['swap_in_bytes_total', 'counter'],
  VIRTIO_BALLOON_S_SWAP_OUT: ['swap_out_bytes_total', 'counter'],
  VIRTIO_BALLOON_S_MAJFLT: ['major_faults_total', 'counter'],
  VIRTIO_BALLOON_S_MINFLT: ['minor_faults_total', 'counter'],
  VIRTIO_BALLOON_S_MEMFREE: ['memory_free_bytes', 'gauge'],
  VIRTIO_BALLOON_S_MEMTOT: ['memory_bytes', 'gauge'],
  VIRTIO_BALLOON_S_AVAIL: ['memory_available_bytes', 'gauge'],
  VIRTIO_BALLOON_S_CACHES: ['caches_bytes', 'gauge'],
  VIRTIO_BALLOON_S_HTLB_PGALLOC: ['hugetlb_allocations_total', 'counter'],
  VIRTIO_BALLOON_S_HTLB_PGFAIL: ['hugetlb_failures_total', 'counter'],
  VIRTIO_BALLOON_S_OOM_KILL: ['oom_kills_total', 'counter'],
  VIRTIO_BALLOON_S_ALLOC_STALL: ['allocation_stalls_total', 'counter'],
  VIRTIO_BALLOON_S_ASYNC_SCAN: ['async_scanned_bytes_total', 'counter'],
  VIRTIO_BALLOON_S_DIRECT_SCAN: ['direct_scanned_bytes_total', 'counter'],
  VIRTIO_BALLOON_S_ASYNC_RECLAIM: ['async_reclaimed_bytes_total', 'counter'],
  VIRTIO_BALLOON_S_DIRECT_RECLAIM: ['direct_reclaimed_bytes_total', 'counter'],
};

function guestRows(): VmFamily[] {
  return STAT_NAMES.map((stat) => {
    const [name, type] = GUEST[stat];
    return own(`guest_${name}`, type, `${stat}, as the guest says`, (view) => view.stats?.[stat]);
  });
}

/** Every one-number family of a VM: a new one is a new row here and in docs/metrics.md. */
export const VM_FAMILIES: readonly VmFamily[] = [
  row('memory_bytes', 'gauge', 'Guest memory that the VMM shares', (view) => view.ramBytes),
  row(
    'memory_allocated_bytes',
    'gauge',
    'Memory that the files of guest memory take up on the host: guest memory less this is memory that was really freed or never used',
    (_, vm) => vm.allocatedBytes,
  ),
  ...balloonRows('balloon', 'the balloon', (view) => view.balloon),
  ...balloonRows('cache', 'the page cache balloon', (view) => view.cache),
  row(
    'balloon_refilled_bytes',
    'gauge',
    'Memory in the balloon that was discarded and is on the host again',
    (view) => view.balloon.refilledBytes,
  ),
  row(
    'balloon_pinned_bytes',
    'gauge',
    'Memory in the balloon that is on the host although it was discarded again, since something pins it',
    (view) => view.balloon.pinnedBytes,
  ),
  own('running', 'gauge', '1 while the guest driver runs', (view) => (view.state === 'running' ? 1 : 0)),
  own('inhibited', 'gauge', '1 while nothing is discarded', (view) => (view.inhibited === null ? 0 : 1)),
  own('verdict', 'gauge', '1 when balloonctl show says what is wrong', (view) =>
    view.verdict === null ? 0 : 1,
  ),
  own('cgroup_current_bytes', 'gauge', 'memory.current of the cgroup', (view) => view.cgroup?.currentBytes),
  ...limitRows(),
  row(
    'cgroup_pressure_some_seconds_total',
    'counter',
    'Time in which some task of the cgroup waited for memory',
    (_, { pressure }) => seconds(pressure?.some.totalUs),
    false,
  ),
  row(
    'cgroup_pressure_full_seconds_total',
    'counter',
    'Time in which all tasks of the cgroup waited for memory at once',
    (_, { pressure }) => seconds(pressure?.full?.totalUs),
    false,
  ),
  own(
    'guest_stats_timestamp_seconds',
    'gauge',
    'Time at which the guest sent its statistics, since the epoch',
    (view) => (view.stats === null ? null : Math.round(wallNow() / 1000 - view.stats.ageSeconds)),
  ),
  ...guestRows(),
];
