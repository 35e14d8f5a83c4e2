import { readFileSync } from 'node:fs';
import t from 'tap';
import { byField } from '../../protocol/control/limits.js';
import type { VmView } from '../../protocol/control/schema.js';
import { Metrics, type MeteredVm } from '../../src/ops/metrics.js';
import { VM_FAMILIES } from '../../src/ops/vm-families.js';
import { formatStat } from '../../src/control/cli/stat-value.js';
import { VmMeters } from '../../src/ops/vm-meters.js';
import { GIB, vmView } from '../support/fleet.js';
import { parseMetrics, type MetricSample } from '../support/metric-samples.js';

const PAGE = new URL('../../../docs/metrics.md', import.meta.url);
const HOSTILE = 'a"b\\c\nd{}';

function metered(name: string, change: Partial<VmView> = {}): MeteredVm {
  return {
    name,
    meters: new VmMeters(),
    allocatedBytes: 3 * GIB,
    pressure: null,
    view: () => vmView(name, change),
  };
}

function fleetOf(...vms: MeteredVm[]): () => MeteredVm[] {
  return () => vms;
}

async function samplesOf(metrics: Metrics): Promise<MetricSample[]> {
  return parseMetrics(String(await metrics.text()));
}

function find(samples: readonly MetricSample[], name: string, labels: Record<string, string> = {}): number[] {
  return samples
    .filter((sample) => sample.name === name)
    .filter(({ labels: has }) => Object.entries(labels).every(([key, value]) => has[key] === value))
    .map(({ value }) => value);
}

/** A VM of which there is everything that can be measured. */
function everything(name: string): MeteredVm {
  const balloon = {
    ...vmView(name).balloon,
    actualBytes: GIB,
    discardedBytesTotal: 7,
    inflatedBytesTotal: 9,
  };
  const cgroup = { path: '/a', currentBytes: 5, ...byField(() => null), highBytes: 6 };
  const stats = { ageSeconds: 3, VIRTIO_BALLOON_S_OOM_KILL: 2, VIRTIO_BALLOON_S_AVAIL: GIB, 'tag-99': 1 };
  const line = { avg10: 1, totalUs: 2_500_000 };
  const pressure = { some: line, full: { ...line, totalUs: 500_000 } };
  return {
    ...metered(name, { balloon, cache: { ...balloon, discardedBytesTotal: 1 }, cgroup, stats }),
    pressure,
  };
}

void t.test('a VM, and all VMs together', async (t) => {
  const vm = everything('web-1');
  vm.meters.kickToAck.observe(0.0004);
  vm.meters.errors.driver++;
  const policy = {
    acted: [{ action: 'took', reason: 'host-short', count: 3 }],
    mode: 'auto',
    paused: true,
    short: true,
    reserveBytes: 7,
    availableBytes: null,
    pools: [],
    vms: [{ name: 'web-1', force: 4, withstands: true, manual: false }],
  };
  const met = new Map([['resume-failed', 2]] as const);
  const samples = await samplesOf(new Metrics(fleetOf(vm, everything('web-2')), '1.2.3', () => policy, met));
  const own = { vm: 'web-1' };
  const expected: [string, Record<string, string>, number][] = [
    ['balloond_vm_memory_bytes', own, 4 * GIB],
    ['balloond_memory_bytes', {}, 8 * GIB],
    ['balloond_vm_memory_allocated_bytes', own, 3 * GIB],
    ['balloond_vm_balloon_actual_bytes', own, GIB],
    ['balloond_balloon_actual_bytes', {}, 2 * GIB],
    ['balloond_vm_balloon_discarded_bytes_total', own, 7],
    ['balloond_balloon_discarded_bytes_total', {}, 14],
    ['balloond_vm_cache_discarded_bytes_total', own, 1],
    ['balloond_vm_cgroup_high_bytes', own, 6],
    ['balloond_vm_cgroup_max_bytes', own, Infinity],
    ['balloond_vm_cgroup_pressure_some_seconds_total', own, 2.5],
    ['balloond_vm_cgroup_pressure_full_seconds_total', own, 0.5],
    ['balloond_policy_actions_total', { action: 'took', reason: 'host-short' }, 3],
    ['balloond_policy_mode', { mode: 'auto' }, 1],
    ['balloond_policy_mode', { mode: 'observe' }, 0],
    ['balloond_policy_paused', {}, 1],
    ['balloond_policy_short', {}, 1],
    ['balloond_policy_reserve_bytes', {}, 7],
    ['balloond_vm_policy_force', own, 4],
    ['balloond_vm_policy_withstands', own, 1],
    ['balloond_vm_policy_manual', own, 0],
    ['balloond_events_total', { event: 'resume-failed' }, 2],
    ['balloond_events_total', { event: 'hand-over-failed' }, 0],
    ['balloond_vm_guest_oom_kills_total', own, 2],
    ['balloond_vm_guest_memory_available_bytes', own, GIB],
    ['balloond_vm_running', own, 1],
    ['balloond_vms', { state: 'running' }, 2],
    ['balloond_vm_kick_to_ack_seconds_bucket', { ...own, le: '0.00025' }, 0],
    ['balloond_vm_kick_to_ack_seconds_bucket', { ...own, le: '0.0005' }, 1],
    ['balloond_vm_kick_to_ack_seconds_count', own, 1],
    ['balloond_kick_to_ack_seconds_count', {}, 1],
    ['balloond_vm_errors_total', { ...own, culprit: 'driver' }, 1],
    ['balloond_errors_total', { culprit: 'driver' }, 1],
    ['balloond_build_info', { version: '1.2.3' }, 1],
  ];
  for (const [name, labels, value] of expected) t.same(find(samples, name, labels), [value], name);
  t.same(find(samples, 'balloond_policy_available_bytes'), [], 'nothing is said of what is not known');
  t.ok((find(samples, 'process_open_fds')[0] ?? 0) > 0);
  t.ok((find(samples, 'process_resident_memory_bytes')[0] ?? 0) > 2 ** 20);
  t.equal(find(samples, 'nodejs_eventloop_lag_seconds').length, 1);
  t.ok((find(samples, 'balloond_host_memory_available_bytes')[0] ?? 0) > 2 ** 20);
});

void t.test('a pool of huge pages that VMs share has series of its own', async (t) => {
  const ram = { short: false, reserveBytes: 7, availableBytes: 9 };
  const pool = { pageBytes: 2 * 2 ** 20, short: true, reserveBytes: 5, availableBytes: 3 };
  const policy = { acted: [], mode: 'auto', paused: false, ...ram, pools: [pool], vms: [] };
  const samples = await samplesOf(new Metrics(fleetOf(), '1', () => policy));
  const values = (name: string): unknown[] =>
    samples.filter((sample) => sample.name === name).map(({ labels, value }) => [labels, value]);
  const own = { pool: '2 MiB' };
  t.same(values('balloond_policy_short'), [
    [{}, 0],
    [own, 1],
  ]);
  t.same(values('balloond_policy_reserve_bytes'), [
    [{}, 7],
    [own, 5],
  ]);
  t.same(values('balloond_policy_available_bytes'), [
    [{}, 9],
    [own, 3],
  ]);
});

void t.test('what a guest or VMM names makes no series of its own', async (t) => {
  const stats = Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`tag-${n + 100}`, n]));
  const honest = await samplesOf(new Metrics(fleetOf(metered('a')), '1'));
  const hostile = await samplesOf(
    new Metrics(fleetOf(metered(HOSTILE, { stats: { ...vmView('a').stats, ageSeconds: 0, ...stats } })), '1'),
  );
  t.equal(hostile.length, honest.length);
  t.same(find(hostile, 'balloond_vm_memory_bytes', { vm: HOSTILE }), [4 * GIB], 'the name comes back whole');
});

void t.test('the series of a VM end with it, and what it counted stays in the sums', async (t) => {
  const old = everything('old');
  const vms = new Set([old]);
  const metrics = new Metrics(() => vms, '1');
  old.meters.discards.observe(0.02);
  old.meters.errors.frontend = 3;
  await metrics.text();
  vms.delete(old);
  metrics.forget(old);
  vms.add(everything('new'));
  const samples = await samplesOf(metrics);
  t.equal(samples.filter(({ labels }) => labels['vm'] === 'old').length, 0);
  t.same(find(samples, 'balloond_balloon_discarded_bytes_total'), [14]);
  t.same(find(samples, 'balloond_balloon_actual_bytes'), [GIB], 'of what is there now');
  t.same(find(samples, 'balloond_errors_total', { culprit: 'frontend' }), [3]);
  t.same(find(samples, 'balloond_discard_seconds_count'), [1]);
});

void t.test('the size of a balloon that its guest has yet to say is left out', async (t) => {
  const vm = everything('web-1');
  const view = { ...vm.view(), balloon: { ...vm.view().balloon, actualUnknown: true } };
  const samples = await samplesOf(new Metrics(() => [{ ...vm, view: () => view }, everything('web-2')], '1'));
  t.same(find(samples, 'balloond_vm_balloon_actual_bytes', { vm: 'web-1' }), []);
  t.same(find(samples, 'balloond_vm_balloon_target_bytes', { vm: 'web-1' }), [0]);
  t.same(find(samples, 'balloond_balloon_actual_bytes'), [GIB]);
});

void t.test('a VM that goes while the answer is written is in the sums once', async (t) => {
  const last = everything('last');
  const vms = new Set([...Array.from({ length: 39 }, (_, n) => everything(`vm-${n}`)), last]);
  const metrics = new Metrics(() => vms, '1');
  const writing = metrics.text();
  vms.delete(last);
  metrics.forget(last);
  t.equal(await metrics.text(), await writing, 'who asks meanwhile gets the same answer');
  t.same(find(parseMetrics(String(await writing)), 'balloond_balloon_discarded_bytes_total'), [40 * 7]);
  t.same(find(await samplesOf(metrics), 'balloond_balloon_discarded_bytes_total'), [40 * 7]);
});

void t.test('docs/metrics.md lists every family there is, and no other', async (t) => {
  const text = String(await new Metrics(fleetOf(everything('a')), '1').text());
  const families = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => `${name} ${type}`);
  const listed = [...readFileSync(PAGE, 'utf8').matchAll(/^\| `(\S+)` \| (\w+) \|/gm)].map(
    ([, name, type]) => `${name} ${type}`,
  );
  t.same(listed.toSorted(), families.toSorted());
  t.equal(new Set(families).size, families.length, 'each once');
});

void t.test('a statistic is a size in metrics where it is one in show', (t) => {
  for (const { name, help } of VM_FAMILIES) {
    const [stat] = /^VIRTIO_BALLOON_S_\w+/.exec(help) ?? [];
    if (stat !== undefined) t.equal(/_bytes(_total)?$/.test(name), formatStat(stat, 4096) === '4 KiB', stat);
  }
  t.end();
});
