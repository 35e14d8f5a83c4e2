import { join } from 'node:path';
import { readKernelFile } from '../os/kernel-file.js';

/** Fields of /proc/PID/stat behind the name, of which this one is the moment at which the process began. */
const BEGAN = 19;

/** A process by its number and the moment at which it began, since numbers come again; null: there is no such process. */
export function processId(proc: string, pid: number): string | null {
  try {
    const stat = readKernelFile(join(proc, String(pid), 'stat'));
    return `${pid}-${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[BEGAN] ?? 0}`;
  } catch {
    return null;
  }
}
