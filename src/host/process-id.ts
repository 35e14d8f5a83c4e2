import { join } from 'node:path';
import { readKernelFile } from '../os/kernel-file.js';
import { HOST_PATHS } from './host-paths.js';

/** Fields of /proc/PID/stat behind the name, of which this one is the moment at which the process began. */
const BEGAN = 19;

/** Whether that process is there and has not ended: one that its parent has yet to ask after is no more. */
export function isRunning(proc: string, process: string): boolean {
  const fields = statOf(proc, parseInt(process, 10));
  return fields !== null && process.endsWith(`-${fields[BEGAN] ?? 0}`) && !/^[ZX]$/.test(fields[0] ?? '');
}

/** A process by its number and the moment at which it began, since numbers come again; null: there is no such process. */
export function processId(proc: string, pid: number): string | null {
  const fields = statOf(proc, pid);
  return fields === null ? null : `${pid}-${fields[BEGAN] ?? 0}`;
}

/** Whether a signal or a debugger stopped the process. */
export function isStopped(pid: number, proc = HOST_PATHS.proc): boolean {
  return /^[Tt]$/.test(statOf(proc, pid)?.[0] ?? '');
}

function statOf(proc: string, pid: number): string[] | null {
  try {
    const stat = readKernelFile(join(proc, String(pid), 'stat'));
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return null;
  }
}
