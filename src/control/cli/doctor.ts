/** `balloonctl doctor`: what on this host, and in each VM, keeps memory from coming back, and what mends it. */
import { OBSTACLES } from '../../../protocol/control/diagnosis.js';
import { RETURNS_STEP } from '../../../protocol/control/events.js';
import { refusal } from '../../../protocol/control/refusal.js';
import type {
  AdoptedSocket,
  BalloonView,
  VmDiagnosis,
  VmView,
  DaemonEvent,
} from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import { vmCommand } from '../../../protocol/control/vm-command.js';
import { BALLOON_SPACE_BYTES } from '../../../protocol/virtio/cache-balloon.js';
import type { VmmMemory } from '../../host/vmm-memory.js';
import type { WallMs } from '../../os/clock.js';
import { ControlError, UnreachableError, type ControlClient } from '../client.js';
import { CONTROL_SOCKET } from './choices.js';
import { mistaken, notHeld, otherVersion, type DaemonSaid } from './daemon-notes.js';
import { examineAdopted } from './examine-adopted.js';
import { FoundError } from './exit.js';
import { bad, good, note, type Finding, type Level } from './finding.js';
import { examineHugePages, examinePolicy } from './huge-pages.js';
import type { HostFacts, VmmFacts } from './host-facts.js';
import { printable, type Output, type Style } from './output.js';
import { count, wrap } from './text.js';

const STYLES: Record<Level, Style> = { ok: 'green', note: 'yellow', mend: 'red' };
/** Of the daemon without VMs, and for each: a socket, a state file, guest memory, and two for each of its queues. */
const FDS = 128;
const FDS_OF_VM = 32;
/** Twice as long as the daemon waits by default. */
const STATS_AGE_MAX_SECONDS = 60;
/** A VM that connects again and again is told of each minute. */
const RETURNED_MS = 120_000;
const WIDTH = 78;
const NEWER_QEMU = 'apt install -t trixie-backports qemu-system-x86 (11.1 or newer)';

/** A document in which a daemon of an earlier build leaves some fields out. */
type Older<Document, Field extends keyof Document> = Omit<Document, Field> & Partial<Pick<Document, Field>>;

/** Prints all findings. `own`: the version of balloonctl. Throws FoundError when one is to be mended. */
export async function doctor(client: ControlClient, output: Output, own: string): Promise<void> {
  const { hostFacts, openFilesMax, sharedMemory, vmmFacts } = await import('./host-facts.js');
  const host = await hostFacts();
  const findings: Finding[] = [];
  const memories: (VmmMemory | null)[] = [];
  try {
    const [vms, events, daemon] = [await client.list(), await client.events(), await client.daemon()];
    findings.push(good('daemon', 'reachable', `serves ${count(vms.length, 'VM')}`));
    findings.push(...examineDaemon(daemon, own), examineConfiguration(daemon), ...examineParts(daemon));
    const { wallNow } = await import('../../os/clock.js');
    findings.push(...examineAdopted(await adoptedBy(client)));
    findings.push(...examineReturns(events, wallNow()));
    const { pid } = daemon as DaemonSaid;
    findings.push(examineFiles(pid === undefined ? null : openFilesMax(pid), vms.length));
    if (pid !== undefined) findings.push(...(await import('./vmm-sockets.js')).examineSockets(pid));
    const shared = pid === undefined ? null : await sharedMemory(pid);
    for (const vm of vms) {
      findings.push(...examineVm(vm, vmmFacts(vm.pid, host.qemu), events));
      const memory = shared?.of(vm.pid) ?? null;
      memories.push(memory);
      if (memory !== null) findings.push(examineHugePages(vm.name, memory));
    }
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    const { configurationMistakes, examineUnreachable, unitState } = await import('./unreachable.js');
    // A daemon at another socket is not that of the unit, nor need it read the same files.
    const ofUnit = client.socketPath === CONTROL_SOCKET;
    const [unit, mistakes] = ofUnit ? [unitState(), configurationMistakes()] : [null, ''];
    findings.push(...examineUnreachable(error, client.socketPath, unit, mistakes));
  }
  findings.unshift(...examineHost(host, memories));
  if (output.json) output.document(findings);
  else output.print(findings.map((finding) => render(finding, output)).join('\n'));
  const toMend = findings.filter(({ level }) => level === 'mend').length;
  if (toMend > 0)
    throw new FoundError(refusal(`${toMend} to mend`, 'do what stands behind each arrow above'));
}

/** `memories`: of each VM; null: it cannot be looked at. */
export function examineHost(host: HostFacts, memories: readonly (VmmMemory | null)[] = []): Finding[] {
  const say = (check: string, fine: boolean, found: string, level: Level, mend: string): Finding => ({
    subject: 'host',
    check,
    level: fine ? 'ok' : level,
    found,
    mend: fine ? null : mend,
  });
  const { discardMethod: method, qemu } = host;
  return [
    say(
      'discard',
      method === 'process_madvise',
      method === null
        ? 'cannot be tried: the native helper does not load'
        : method === 'process_madvise'
          ? 'process_madvise takes MADV_REMOVE: many ranges a system call'
          : `${method}: one system call a range`,
      method === null ? 'mend' : 'note',
      method === null ? 'npm run build' : 'boot a newer kernel for process_madvise on the own process',
    ),
    say(
      'cgroup',
      host.cgroupV2,
      host.cgroupV2 ? 'v2 with its memory controller' : 'no v2 memory controller',
      'note',
      'boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all',
    ),
    say('pressure', host.pressure, host.pressure ? 'PSI is on' : 'PSI is off', 'note', 'boot with psi=1'),
    examinePolicy(host.shmemHugePages, host.hugePages, memories),
    qemu === null
      ? say('QEMU', false, 'none on PATH', 'note', NEWER_QEMU)
      : say(
          'QEMU',
          qemu.vhostUserDevice,
          `${qemu.version} at ${qemu.path}${qemu.vhostUserDevice ? '' : ' lists no vhost-user-test-device-pci'}`,
          'mend',
          NEWER_QEMU,
        ),
    say(
      'discovery',
      host.discovery,
      host.discovery ? 'installed for VMMs' : 'no /usr/share/qemu/vhost-user/50-balloond.json',
      'note',
      'npm run install-system',
    ),
  ];
}

/** Of a daemon that is too old to adopt, none. */
async function adoptedBy(client: ControlClient): Promise<AdoptedSocket[]> {
  return await client.adopted().catch((error: unknown) => {
    if (!(error instanceof ControlError) || error.status !== 404) throw error;
    return [];
  });
}

/** Of which version the daemon is, and who holds its VMs while none runs. */
function examineDaemon(daemon: DaemonSaid, own: string): Finding[] {
  const { version, holder } = daemon;
  const other = otherVersion(daemon, own);
  const versions: Finding =
    other === null
      ? good('daemon', 'version', version)
      : note('daemon', 'version', other.found, other.remedy);
  const problem = notHeld(daemon);
  if (holder === undefined) {
    const mend = 'look for FileDescriptorStoreMax= in its unit, or for --supervise on its command line';
    return [versions, note('daemon', 'holder', 'unknown, it is too old to say', mend)];
  }
  if (problem === null) {
    return [
      versions,
      good('daemon', 'holder', `${holder ?? 'a process'} holds the VMs while no daemon runs`),
    ];
  }
  const finding = bad('daemon', 'holder', problem.found, problem.remedy);
  return [versions, holder === null ? finding : { ...finding, level: 'note' }];
}

function examineConfiguration(daemon: DaemonSaid): Finding {
  const mistake = mistaken(daemon);
  if (mistake !== null) return bad('daemon', 'configuration', mistake.found, mistake.remedy);
  const files = daemon.configFiles ?? [];
  return good('daemon', 'configuration', files.length === 0 ? 'no file' : files.join(', '));
}

/** Parts of the daemon that may not do what they were asked to. A daemon of an earlier build tells of none. */
function examineParts({ problems }: DaemonSaid): Finding[] {
  return (problems ?? []).map(({ part, text, remedy }) => bad('daemon', part, text, remedy));
}

/** VMs that connect again and again, and may not be there when the daemon is asked for its VMs. */
export function examineReturns(events: readonly DaemonEvent[], now: WallMs): Finding[] {
  const last = new Map<string, DaemonEvent>();
  for (const event of events) {
    if (event.event === 'vm-returns' && now - Date.parse(event.time) < RETURNED_MS)
      last.set(event.vm ?? '', event);
  }
  return [...last].map(([name, { fields }]) =>
    bad(
      name,
      'connections',
      `${String(fields['times'])} within ${String(fields['seconds'])} s`,
      RETURNS_STEP,
    ),
  );
}

/** `most`: that the daemon may have open; null: not known. */
export function examineFiles(most: number | null, vms: number): Finding {
  if (most === null) return good('daemon', 'open files', 'its limit may not be looked at: run this as root');
  const needed = FDS + vms * FDS_OF_VM;
  const found = `at most ${most}; with ${count(vms, 'VM')} it needs ${needed}`;
  if (most >= needed) return good('daemon', 'open files', found);
  return bad(
    'daemon',
    'open files',
    found,
    `systemctl edit balloond.service, LimitNOFILE=${2 ** Math.ceil(Math.log2(2 * needed))}`,
  );
}

export function examineVm(vm: VmView, vmm: VmmFacts, events: readonly DaemonEvent[]): Finding[] {
  const { name, inhibited, features, cache } = vm;
  const isServed = vm.kind === 'vhost-user';
  const wrong = verdictOf(vm);
  const refused = wrong?.code === 'private-memory' || wrong?.code === 'rings-silent';
  const mapped = events.findLast((one) => one.vm === name && one.event === 'memory-mapped');
  const pageBytes = mapped?.fields['backingPageBytes'];
  const tooFew = wrong?.code === 'too-few-queues';
  const pages = typeof pageBytes === 'number' ? `, pages of ${formatSize(pageBytes)}` : '';
  const findings = [
    good(name, 'VMM', `${vmm.kind}${vmm.version === null ? '' : ` ${vmm.version}`}, pid ${vm.pid}`),
    refused
      ? bad(name, 'memory', 'private: the daemon sees a copy', wrong.remedy)
      : good(
          name,
          'memory',
          !isServed
            ? 'any, since QEMU serves its own balloon and discards by itself'
            : vm.memory.sharedBytes === 0
              ? 'not shared yet'
              : `${formatSize(vm.memory.sharedBytes)} shared${pages}`,
        ),
    ...((refused || vm.memory.discardableBytes === 0) && inhibited === null ? [] : [examinePinned(vm)]),
    ...(isServed
      ? [tooFew ? bad(name, 'queues', wrong.text, wrong.remedy) : good(name, 'queues', 'enough')]
      : []),
    good(
      name,
      'features',
      features.map((one) => one.replace(/^VIRTIO_(BALLOON_)?F_/, '')).join(' ') ||
        (isServed ? 'none acked' : 'QEMU does not say which ones the driver acked'),
    ),
    // Its own balloon is no obstacle to itself.
    ...(refused ? [] : [examineDriver(vm, isServed ? vmm : { ...vmm, obstacle: null })]),
  ];
  if (cache !== null) findings.push(examineCache(name, cache, features, vm.policy?.mode === 'auto'));
  else if (vm.queuesLacking) findings.push(noteQueues(name, vm.queuesLacking));
  const ofLimits = limitsOf(vm.limits);
  if (ofLimits !== null) {
    findings.push(note(name, 'limits', ofLimits.text, ofLimits.remedy));
  }
  // What stands above already is not said twice.
  const said = refused || tooFew || (wrong?.code === 'no-driver' && vmm.obstacle !== null);
  if (wrong !== null && inhibited === null && !said) {
    // A VM that was paused is as its operator wants it.
    findings.push((wrong.code === 'stopped' ? note : bad)(name, 'verdict', wrong.text, wrong.remedy));
  }
  return findings;
}

function examineDriver(vm: VmView, vmm: VmmFacts): Finding {
  const { name, state, features, stats } = vm;
  const asksStats = features.includes('VIRTIO_BALLOON_F_STATS_VQ');
  const silent = asksStats && (stats === null || stats.ageSeconds > STATS_AGE_MAX_SECONDS);
  if (state === 'running' && !silent) {
    return good(
      name,
      'driver',
      stats === null ? 'runs' : `runs, heard of ${Math.round(stats.ageSeconds)} s ago`,
    );
  }
  if (state === 'connected' && vmm.obstacle !== null) {
    const { text, remedy: mend } = OBSTACLES[vmm.obstacle];
    const found = `connected; ${text}`;
    return verdictOf(vm)?.code === 'no-driver'
      ? bad(name, 'driver', found, mend)
      : note(name, 'driver', found, mend);
  }
  const load = 'modprobe virtio_balloon (in the guest)';
  if (state === 'running')
    return note(name, 'driver', 'runs, but is silent', `look whether the guest hangs; ${load}`);
  const wake = `virsh resume ${name}, or virsh dompmwakeup ${name} where the guest sleeps, or ${load}`;
  return state === 'stopped'
    ? note(name, 'driver', 'stopped, or the VM is paused, or its guest sleeps', wake)
    : note(name, 'driver', 'none has started yet', `${load}, or see dmesg there for an error of the driver`);
}

function examinePinned(vm: VmView): Finding {
  const { name, inhibited } = vm;
  if (inhibited === null) return good(name, 'pinned', 'no, pages that the guest gives up are discarded');
  const order = inhibitOrder(vm);
  if (order === undefined) return bad(name, 'pinned', inhibited, inhibitedUntil(vm));
  return note(name, 'inhibited', `nothing is discarded, as was ordered: ${inhibited}`, order.undo);
}

/** The verdict of a VM; a daemon that is too old to give a code gives a sentence alone. */
function verdictOf({ diagnosis, verdict }: Older<VmView, 'diagnosis'>): VmDiagnosis | null {
  if (diagnosis !== undefined) return diagnosis;
  return verdict === null
    ? null
    : { code: 'earlier-build', text: verdict, remedy: 'take the step that the verdict names' };
}

function limitsOf({ diagnosis, problem }: Older<VmView['limits'], 'diagnosis'>): VmDiagnosis | null {
  if (diagnosis?.code === 'limits-denied') {
    return { ...diagnosis, remedy: 'systemctl start balloond-limits.socket' };
  }
  if (diagnosis !== undefined) return diagnosis;
  const remedy =
    'take the step that this reason names, or leave the VM without limits; LIMITS in balloond(8) explains each reason';
  return problem === null ? null : { code: 'earlier-build', text: problem, remedy };
}

function inhibitOrder({ orders }: Older<VmView, 'orders'>): VmView['orders'][number] | undefined {
  return orders?.find(({ order }) => order === 'inhibit');
}

/** The step that ends an inhibit by a device. */
function inhibitedUntil({ name, diagnosis }: Pick<Older<VmView, 'diagnosis'>, 'name' | 'diagnosis'>): string {
  if (diagnosis?.code === 'memory-pinned') return diagnosis.remedy;
  return `${vmCommand('balloonctl allow', name)}, or detach the device that it names`;
}

/** A driver that runs acks features of its own, or, where it is as old as the proposal, has told of pages. */
function examineCache(
  name: string,
  cache: BalloonView,
  features: readonly string[],
  governed: boolean,
): Finding {
  const runs =
    features.some((one) => one.startsWith('VIRTIO_CACHE_BALLOON_F_')) || (cache.inflatedBytesTotal ?? 0) > 0;
  const holds = `holds ${formatSize(cache.actualBytes)} of at most ${formatSize(cache.targetBytes)}`;
  if (runs && cache.targetBytes > 0) return good(name, 'page cache balloon', holds);
  if (runs && governed) return good(name, 'page cache balloon', 'may hold nothing while the host has room');
  const [found, mend] = runs
    ? ['may hold nothing yet', vmCommand('balloonctl set', name, '--cache-limit SIZE')]
    : ['no driver of it has started', 'load the virtio_balloon of guest/virtio_balloon in the guest'];
  return note(name, 'page cache balloon', found, mend);
}

/** The VMM was started with the arguments of a build before this one, and the device is a plain balloon. */
function noteQueues(name: string, { present, needed }: NonNullable<VmView['queuesLacking']>): Finding {
  const found = `the VMM has ${present} virtqueues, and the guest can have no page cache balloon`;
  const mend = `set num_vqs=${needed},config_size=${BALLOON_SPACE_BYTES} on its balloon and restart the VM, if it is to have one`;
  return note(name, 'page cache balloon', found, mend);
}

function render({ subject, check, level, found, mend }: Finding, output: Output): string {
  const [first = '', ...more] = wrap(`${printable(subject)}: ${check}: ${printable(found)}`, WIDTH - 6);
  const lines = [
    `${output.paint(STYLES[level], level.padEnd(4))}  ${first}`,
    ...more.map((line) => `      ${line}`),
  ];
  return [...lines, ...(mend === null ? [] : [`      -> ${printable(mend)}`])].join('\n');
}
