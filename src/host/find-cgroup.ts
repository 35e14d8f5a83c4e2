import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readKernelFile } from '../os/kernel-file.js';
import { Cgroup } from './cgroup.js';
import { codeOf, HOST_PATHS, type HostPaths } from './host-paths.js';

/** The cgroup of a VM, or a sentence that says why it has none that may be limited, and what to do. */
type CgroupSearch = { cgroup: Cgroup; reason: null } | { cgroup: null; reason: string };

/** Processes that are looked at to tell whose a cgroup is. */
const MAX_PROCESSES = 4096;
/** What libvirt makes below the cgroup of a machine, for parts of the VMM. */
const LIBVIRT_PART = /\/libvirt(\/(emulator|vcpu\d+|iothread\d+))?$/;
/** systemd's units that hold processes. */
const UNIT = /\.(scope|service)$/;
/** What systemd-machined or libvirt made for one machine: its helpers (swtpm, virtiofsd) are the VM, too. */
const MACHINE = /\/(machine-[^/]+\.scope|machine\/[^/]+\.libvirt-qemu)$/;

/**
 * Looks for the cgroup (v2) of the VM whose VMM is `pid`. It is the unit or the machine's that holds the VMM, else
 * the nearest that counts memory; never one that holds somebody else, unless `shared`; in no case the root or one that
 * holds this daemon.
 */
export function findVmCgroup(pid: number, { shared = false, paths = HOST_PATHS } = {}): CgroupSearch {
  const none = (reason: string): CgroupSearch => ({ cgroup: null, reason });
  const own = membership(paths, 'self');
  const peer = membership(paths, String(pid));
  if (typeof peer === 'string') return none(`the cgroup of process ${pid} cannot be read (${peer})`);
  if (peer.v1Memory) {
    return none(
      'cgroup v1 holds the memory controller: boot the host with systemd.unified_cgroup_hierarchy=1 to have limits',
    );
  }
  if (peer.path === null) return none('the kernel has no cgroup v2');
  if (peer.path.split('/').includes('..')) {
    return none(
      "the VMM is outside this daemon's cgroup namespace: run the daemon in the host's (cgroupns=host)",
    );
  }
  if (!existsSync(join(paths.cgroup, 'cgroup.controllers'))) {
    return none(`no cgroup v2 is mounted at ${paths.cgroup}`);
  }
  const path = choose(peer.path, paths);
  if (path === '/')
    return none('the VMM is in the root cgroup: start it in a scope of its own (systemd-run --scope)');
  const ownPath = typeof own === 'string' ? null : own.path;
  if (ownPath !== null && `${ownPath}/`.startsWith(`${path}/`)) {
    return none(`the daemon itself is in ${path}: start VMs in a unit or scope of their own`);
  }
  if (!existsSync(join(paths.cgroup, path, 'memory.max'))) {
    return none(
      `${path} has no memory controller: write +memory to the cgroup.subtree_control above it (systemd: MemoryAccounting=yes)`,
    );
  }
  if (!shared && !MACHINE.test(path)) {
    const stranger = findStranger(path, pid, paths);
    if (stranger !== null) {
      return none(
        `${path} holds ${stranger} as well: start the VM in a scope of its own, or set shared-cgroup = true for it`,
      );
    }
  }
  return { cgroup: new Cgroup(path, paths.cgroup), reason: null };
}

/** The cgroup to limit if all in it is the VM's. */
function choose(leaf: string, { cgroup }: HostPaths): string {
  const machine = leaf.replace(LIBVIRT_PART, '') || '/';
  const parts = machine.split('/');
  const unit = parts.findLastIndex((part) => UNIT.test(part));
  if (unit > 0) return parts.slice(0, unit + 1).join('/');
  while (parts.length > 2 && !existsSync(join(cgroup, parts.join('/'), 'memory.max'))) parts.pop();
  return parts.join('/') || '/';
}

interface Membership {
  /** In the v2 hierarchy. */
  path: string | null;
  v1Memory: boolean;
}

/** An errno name when it cannot be read. */
function membership({ proc }: HostPaths, process: string): Membership | string {
  let text: string;
  try {
    text = readKernelFile(join(proc, process, 'cgroup'));
  } catch (error) {
    return codeOf(error);
  }
  return {
    path: /^0::(\/.*)$/m.exec(text)?.[1] ?? null,
    v1Memory: /^\d+:([^:\n]*,)?memory(,[^:\n]*)?:/m.test(text),
  };
}

/** A process in or below the cgroup that is neither the VMM nor one of its descendants, in words. */
function findStranger(path: string, vmm: number, paths: HostPaths): string | null {
  const parents = new Map<number, number>();
  const isVmms = (pid: number): boolean => {
    let at = pid;
    for (let depth = 0; depth < 64 && at > 1; depth++) {
      if (at === vmm) return true;
      const parent = parents.get(at) ?? parentOf(at, paths);
      if (parent === null) return true; // It ended meanwhile.
      parents.set(at, parent);
      at = parent;
    }
    return false;
  };
  let rest = MAX_PROCESSES;
  const folders = [join(paths.cgroup, path)];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const pid of processesOf(folder)) {
      if (rest-- === 0) return `more than ${MAX_PROCESSES} processes`;
      if (pid === 0) return 'a process of another PID namespace';
      if (!isVmms(pid)) return `process ${pid}`;
    }
    folders.push(...foldersBelow(folder));
  }
  return null;
}

/** Of a threaded cgroup they are listed further up. */
function processesOf(folder: string): number[] {
  try {
    return readKernelFile(join(folder, 'cgroup.procs')).split('\n').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function foldersBelow(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => join(folder, entry.name));
  } catch {
    return [];
  }
}

/** Null when the process ended. */
function parentOf(pid: number, { proc }: HostPaths): number | null {
  try {
    // The command's name is in parentheses and may hold anything.
    const fields = readKernelFile(join(proc, String(pid), 'stat')).replace(/^.*\)/s, '');
    return Number(fields.trim().split(' ')[1]);
  } catch {
    return null;
  }
}
