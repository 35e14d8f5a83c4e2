/** What doctor looks at on this host. Whatever may not be read is taken for missing. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import type { Obstacle } from '../../../protocol/control/diagnosis.js';
import { peerObstacle } from '../../host/peer.js';
import type { SharedMemory } from '../../host/vmm-memory.js';

const DISCOVERY = '/usr/share/qemu/vhost-user/50-balloond.json';
const DEVICE = 'vhost-user-test-device-pci';
const RUN_TIMEOUT_MS = 10_000;

interface QemuFacts {
  path: string;
  version: string;
  /** Its `-device help` lists the device that qemu-args needs. */
  vhostUserDevice: boolean;
}

export interface HostFacts {
  /** How this kernel discards; null: the native helper does not load. */
  discardMethod: string | null;
  cgroupV2: boolean;
  pressure: boolean;
  /** The policy for shared memory, a word of the kernel's; null: it has none. */
  shmemHugePages: string | null;
  hugePages: number;
  qemu: QemuFacts | null;
  discovery: boolean;
}

export interface VmmFacts {
  /** The program's name, `unknown` where it may not be looked at. */
  kind: string;
  version: string | null;
  /** What keeps the guest's driver from starting, as far as the command line tells. */
  obstacle: Obstacle | null;
}

export async function hostFacts(): Promise<HostFacts> {
  const [, thp = null] = /\[(\w+)\]/.exec(read('/sys/kernel/mm/transparent_hugepage/shmem_enabled')) ?? [];
  return {
    discardMethod: await import('../../os/discard.js').then(
      ({ probeDiscard }) => attempt(probeDiscard),
      () => null,
    ),
    cgroupV2: /\bmemory\b/.test(read('/sys/fs/cgroup/cgroup.controllers')),
    pressure: read('/proc/pressure/memory') !== '',
    shmemHugePages: thp,
    hugePages: Number(read('/proc/sys/vm/nr_hugepages')),
    qemu: findQemu(process.env['PATH'] ?? ''),
    discovery: existsSync(DISCOVERY),
  };
}

/** How many files a process may have open; null: it may not be looked at. */
export function openFilesMax(pid: number): number | null {
  const [, most] = /^Max open files\s+(\d+)/m.exec(read(`/proc/${pid}/limits`)) ?? [];
  return most === undefined ? null : Number(most);
}

/** Of the daemon's VMs; null: the native helper does not load. */
export function sharedMemory(daemonPid: number): Promise<SharedMemory | null> {
  return import('../../host/vmm-memory.js').then(
    ({ SharedMemory }) => new SharedMemory(daemonPid),
    () => null,
  );
}

/** The version is told where the VMM is the QEMU on PATH: nothing that a VMM could have put there is run. */
export function vmmFacts(pid: number, qemu: QemuFacts | null): VmmFacts {
  const program = attempt(() => readlinkSync(`/proc/${pid}/exe`));
  if (program === null) return { kind: 'unknown', version: null, obstacle: null };
  const same = qemu !== null && attempt(() => realpathSync(qemu.path)) === program;
  return {
    kind: basename(program),
    version: same ? qemu.version : null,
    obstacle: peerObstacle(pid),
  };
}

export function findQemu(path: string): QemuFacts | null {
  const programs = path.split(delimiter).map((folder) => join(folder, 'qemu-system-x86_64'));
  const program = programs.find((program) => attempt(() => (accessSync(program, constants.X_OK), true)));
  if (program === undefined) return null;
  const version = /version (\S+)/.exec(run(program, ['--version']))?.[1] ?? 'of unknown version';
  return {
    path: program,
    version,
    vhostUserDevice: run(program, ['-device', 'help']).includes(`"${DEVICE}"`),
  };
}

function run(program: string, args: string[]): string {
  return (
    attempt(() =>
      execFileSync(program, args, {
        encoding: 'utf8',
        timeout: RUN_TIMEOUT_MS,
        stdio: ['ignore', 'pipe', 'ignore'],
      }),
    ) ?? ''
  );
}

function read(path: string): string {
  return attempt(() => readFileSync(path, 'utf8')) ?? '';
}

function attempt<T>(action: () => T): T | null {
  try {
    return action();
  } catch {
    return null;
  }
}
