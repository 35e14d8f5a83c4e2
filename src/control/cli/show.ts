/** `balloonctl show` and `stats`: what an operator asks next about one VM, most urgent first. */
import { LIMIT_NAMES, LIMITS } from '../../../protocol/control/limits.js';
import type { BalloonView, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import type { ControlClient } from '../client.js';
import { tellNotes } from './daemon-notes.js';
import { actualWords, guestBytes, printable, STATE_STYLES, type Output } from './output.js';
import { formatAge, formatStat } from './stat-value.js';
import { alignColumns, wrap } from './text.js';

const LABEL_COLUMNS = 14;
const WIDTH_MAX = 100;

const STATE_MEANS: Record<VmView['state'], string> = {
  connected: 'the guest driver has not started yet',
  running: 'the guest driver is at work',
  stopped: 'the VM is paused, its guest sleeps, or the guest driver stopped',
};

type Compared = Pick<BalloonView, 'refilledBytes' | 'pinnedBytes'>;
type MayCompare = Omit<BalloonView, keyof Compared> & Partial<Compared>;

/** `own`: the version of balloonctl. */
export async function show(client: ControlClient, output: Output, name: string, own: string): Promise<void> {
  const [vm, daemon] = await Promise.all([client.show(name), client.daemon()]);
  if (output.json) output.document(vm);
  else output.print(renderVm(vm, output));
  tellNotes(daemon, own, output);
}

export async function stats(
  client: ControlClient,
  output: Output,
  name: string,
  refresh: boolean,
): Promise<void> {
  const values = await client.stats(name, refresh);
  if (output.json) output.document(values);
  else output.print(statsLines(values).join('\n'));
}

/** `seconds` between two times that the guest is asked; 0: never. */
export async function setStatsInterval(
  client: ControlClient,
  output: Output,
  name: string,
  seconds: number,
): Promise<void> {
  const vm = await client.setStatsInterval(name, seconds);
  if (output.json) output.document(vm);
  else {
    const [often = ''] = askedEvery(vm.statsIntervalSeconds);
    output.print(
      `${printable(vm.name)}: statistics are ${often} until the daemon restarts or reads its configuration again`,
    );
  }
}

export function renderVm(vm: VmView, output: Output): string {
  const width = Math.min(output.columns ?? 80, WIDTH_MAX) - LABEL_COLUMNS;
  const state = output.paint(STATE_STYLES[vm.state], vm.state);
  const lines = [
    `${output.paint('bold', printable(vm.name))}  pid ${vm.pid}  ${state}: ${STATE_MEANS[vm.state]}`,
    ...section('Verdict', vm.verdict === null ? ['nothing to fix'] : wrap(printable(vm.verdict), width)),
    ...section('Over', overOf(vm)),
    ...section('Not discarding', vm.inhibited === null ? [] : wrap(printable(vm.inhibited), width)),
    ...section('Memory', [
      vm.ramBytes === 0
        ? 'it is not known yet how much memory the guest has'
        : `${formatSize(vm.ramBytes)} RAM, the guest has ${vm.balloon.actualUnknown ? 'an unknown part of it' : formatSize(guestBytes(vm))}`,
      ...sharedOtherwise(vm),
    ]),
    ...section('Balloon', balloonLines(vm)),
    ...section('Page cache', vm.cache === null ? [] : cacheLines(vm.cache)),
    ...section('Cgroup', cgroupLines(vm)),
    ...section('Policy', policyLines(vm.policy)),
    ...section('Orders', orderLines(vm, width)),
    ...section(
      'Features',
      vm.features.length === 0
        ? [vm.kind !== 'vhost-user' ? 'QEMU does not say which the driver acknowledged' : 'none acknowledged']
        : vm.features.map((name) => printable(name)),
    ),
    ...section('Statistics', [...statsLines(vm.stats), ...askedEvery(vm.statsIntervalSeconds)]),
  ];
  return lines.join('\n');
}

/** The age, then one line a statistic. */
export function statsLines(stats: VmView['stats']): string[] {
  if (stats === null) return ['none received'];
  const { ageSeconds, ...values } = stats;
  const rows = Object.entries(values).map(([name, value]) => [printable(name), formatStat(name, value)]);
  return [`${formatAge(ageSeconds)} old`, ...alignColumns(rows, '<>')];
}

/** Undefined: the daemon is too old to say it. */
function askedEvery(seconds: number | undefined): string[] {
  if (seconds === undefined) return [];
  return [seconds === 0 ? 'not asked for' : `asked for every ${seconds} s`];
}

function section(label: string, lines: readonly string[]): string[] {
  return lines.map((line, index) => `${(index === 0 ? label : '').padEnd(LABEL_COLUMNS)}  ${line}`);
}

/** A daemon of an earlier build compares nothing. */
function balloonLines({ state, balloon }: Pick<VmView, 'state'> & { balloon: MayCompare }): string[] {
  const { targetBytes, actualBytes, actualUnknown, pendingBytes, refilledBytes, pinnedBytes } = balloon;
  const missingBytes = targetBytes - actualBytes;
  const progress =
    state !== 'running'
      ? `the target waits for the guest driver${state === 'stopped' ? ', which held that when it stopped' : ''}`
      : actualUnknown
        ? 'the guest has yet to say what it holds'
        : missingBytes === 0
          ? 'reached'
          : missingBytes > 0
            ? `${formatSize(missingBytes)} still to come from the guest`
            : `${formatSize(-missingBytes)} still to go back to the guest`;
  return [
    `${actualWords(balloon)} of target ${formatSize(targetBytes)}: ${progress}`,
    ...(pendingBytes > 0 ? [`${formatSize(pendingBytes)} given up but not yet discarded`] : []),
    ...((refilledBytes ?? 0) > 0
      ? [`${formatSize(refilledBytes ?? 0)} discarded, and on the host again`]
      : []),
    ...((pinnedBytes ?? 0) > 0 ? [`${formatSize(pinnedBytes ?? 0)} discarded again, and kept by a pin`] : []),
    ...(balloon.discardedBytesTotal === null
      ? ['QEMU serves the balloon itself, and does not say how much it discarded so far']
      : [
          `so far inflated ${counted(balloon.inflatedBytesTotal)}, deflated ${counted(balloon.deflatedBytesTotal)},`,
          `reported ${counted(balloon.reportedBytesTotal)}, discarded ${counted(balloon.discardedBytesTotal)}`,
        ]),
  ];
}

function cacheLines(cache: BalloonView): string[] {
  return [
    `${actualWords(cache)} of at most ${formatSize(cache.targetBytes)}`,
    `so far added ${counted(cache.inflatedBytesTotal)}, told as reclaimed ${counted(cache.deflatedBytesTotal)},`,
    cache.discardedBytesTotal === null
      ? 'discards are counted with those of the balloon, whose device it is'
      : `discarded ${formatSize(cache.discardedBytesTotal)}`,
  ];
}

function counted(bytes: number | null): string {
  return bytes === null ? 'an unknown amount' : formatSize(bytes);
}

export function cgroupLines({ cgroup, limits }: VmView): string[] {
  const problem = limits.problem === null ? [] : [printable(limits.problem)];
  if (cgroup === null) return problem;
  // A daemon of an earlier build may know fewer limits.
  const known: Partial<typeof cgroup> = cgroup;
  const set = LIMIT_NAMES.flatMap((name) => {
    const bytes = known[LIMITS[name].field];
    return bytes === undefined ? [] : [`, ${name} ${bytes === null ? 'max' : formatSize(bytes)}`];
  });
  const follows = LIMIT_NAMES.filter((name) => limits[name] === 'follow');
  const following = follows.length === 0 ? '' : `${follows.join(' and ')} follow the`;
  return [
    printable(cgroup.path),
    `${formatSize(cgroup.currentBytes)} now${set.join('')}`,
    ...(following === '' ? [] : [`${following} ${formatSize(limits.mayUseBytes)} that the guest may use`]),
    ...problem,
  ];
}

/** Each order with its time and the way to take it back. A daemon of an earlier build tells of none. */
export function orderLines({ orders = [] }: Partial<Pick<VmView, 'orders'>>, width: number): string[] {
  return orders.flatMap(({ says, by, since, undo }) => {
    const when = since === null ? '' : ` since ${since.replace(/\.\d+Z$/, 'Z')}`;
    return [
      ...wrap(`${printable(says)}, by the ${by}${when}`, width),
      ...wrap(`to take it back: ${printable(undo)}`, width - 2).map((line) => `  ${line}`),
    ];
  });
}

function policyLines(policy: VmView['policy']): string[] {
  if (policy === null) return [];
  const { band, minBytes, maxBytes, mode } = policy;
  return [`band ${printable(band)}, ${formatSize(minBytes)} to ${formatSize(maxBytes)}, ${printable(mode)}`];
}

/** The way to the VMM, where that serves its balloon itself. */
function overOf({ kind, socket }: VmView): string[] {
  if (kind === 'vhost-user') return [];
  return [kind === 'qmp' ? `QMP, at ${printable(socket ?? '')}` : 'libvirt'];
}

/** Not all that a VMM shares has to be memory of the guest, nor all of that shared. */
function sharedOtherwise({
  kind,
  state,
  memory: { sharedBytes, ramBytes, allocatedBytes },
}: VmView): string[] {
  if (kind !== 'vhost-user')
    return [
      `QEMU has ${formatSize(allocatedBytes)} on the host or in its swap: the memory of its guest and its own, without the files of its program`,
    ];
  if (sharedBytes === 0)
    return [state === 'connected' ? 'the VMM has not shared it yet' : 'the VMM shares none of it'];
  if (sharedBytes === ramBytes) return [];
  return [`the VMM shares ${formatSize(sharedBytes)}, of which ${formatSize(allocatedBytes)} is on the host`];
}
