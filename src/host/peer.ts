import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Obstacle } from '../../protocol/control/diagnosis.js';
import { readKernelFile } from '../os/kernel-file.js';
import { assignedMemory } from './assigned-memory.js';
import { mappingsOf } from './mappings.js';
import { qemuOptions } from './qemu-options.js';

/** Command lines and cgroup paths longer than this are cut: they are the peer's to choose. */
const MAX_READ_BYTES = 256 * 1024;

/**
 * What can be learnt of the process at the other end of a connection from /proc. All of it is null or unknown
 * when the process is gone or may not be looked at.
 */
export function peerName(pid: number): string | null {
  return nameFromCommandLine(readProc(pid, 'cmdline')) ?? nameFromCgroup(readProc(pid, 'cgroup'));
}

/** Whether the command line of the process has that UUID, as that of QEMU has. */
export function hasUuid(proc: string, pid: number, uuid: string): boolean {
  try {
    const commandLine = readKernelFile(join(proc, String(pid), 'cmdline'));
    return qemuOptions(commandLine, 'uuid', 'uuid').some((one) => one['uuid']?.toLowerCase() === uuid);
  } catch {
    return false;
  }
}

/** The memory that the peer's command line gives the guest, in bytes, where the peer is QEMU; null where that cannot be told. */
export function peerMemory(pid: number): number | null {
  return assignedMemory(readProc(pid, 'cmdline'));
}

/** What keeps the guest's driver from starting, by QEMU's command line; null: nothing that is known. */
export function driverObstacle(commandLine: string | null): Obstacle | null {
  if (/^([^\0]*\/)?qemu-system-s390x\0/.test(commandLine ?? '')) return 's390x';
  const reports = qemuOptions(commandLine, 'device', 'driver').some(
    ({ driver = '', 'free-page-reporting': reporting = 'off' }) =>
      driver.startsWith('virtio-balloon') && /^(on|yes|true|y)$/.test(reporting),
  );
  return reports ? 'own-balloon' : null;
}

/** The same of a process; null where that cannot be told. */
export function peerObstacle(pid: number): Obstacle | null {
  return driverObstacle(readProc(pid, 'cmdline'));
}

/** The same, looked at when it is first asked for, and once: a process has one command line. */
export function obstacleOf(pid: number): () => Obstacle | null {
  let known: Obstacle | null | undefined;
  return () => (known === undefined ? (known = peerObstacle(pid)) : known);
}

/**
 * Whether the peer maps the file behind `userAddr` privately (QEMU's share=off): what its guest writes is then
 * never seen by anybody else. Null when that cannot be told.
 */
export function mapsPrivately(pid: number, userAddr: bigint): boolean | null {
  try {
    for (const { start, end, shared, file } of mappingsOf(pid)) {
      if (end <= userAddr) continue;
      return start > userAddr || file === null ? null : !shared;
    }
  } catch {
    // The process ended, or may not be looked at.
  }
  return null;
}

/** QEMU's `-name NAME` or `-name guest=NAME,…`, where a comma in a name is written twice. */
export function nameFromCommandLine(commandLine: string | null): string | null {
  return cleanName(qemuOptions(commandLine, 'name', 'guest')[0]?.['guest']);
}

/** The machine in a systemd scope such as `machine-qemu\x2d3\x2dweb.scope`. */
export function nameFromCgroup(cgroups: string | null): string | null {
  const scope = /\/machine-(?:qemu\\x2d\d+\\x2d)?([^/\n]+)\.scope/.exec(cgroups ?? '');
  const escaped = scope?.[1];
  return cleanName(
    escaped?.replaceAll(/\\x([0-9a-f]{2})/g, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    ),
  );
}

/**
 * A name that is safe in logs, URLs and on a terminal, or null when nothing is left of it: at most 64 UTF-16 units, never
 * half of a character, and none of the dots that URLs take for folders.
 */
export function cleanName(name: string | undefined): string | null {
  const clean = name
    ?.replaceAll(/[^\p{L}\p{N}._:@+-]/gu, '_')
    .slice(0, 64)
    .replace(/\p{Cs}/u, '')
    .replace(/^\.{1,2}$/, '_');
  return clean === undefined || clean === '' ? null : clean;
}

/** Without halves of characters, which no URL can carry. */
export function wellFormed(name: string): string {
  return name.replaceAll(/\p{Cs}/gu, '') || '_';
}

function readProc(pid: number, file: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8').slice(0, MAX_READ_BYTES);
  } catch {
    return null;
  }
}
