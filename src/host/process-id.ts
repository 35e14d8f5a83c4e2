import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Fields of /proc/PID/stat behind the name, of which this one is the moment at which the process began. */
const BEGAN = 19;

/** A process by its number and the moment at which it began, since numbers come again; null: there is no such process. */
export function processId(proc: string, pid: number): string | null {
  try {
    const stat = readFileSync(join(proc, String(pid), 'stat'), 'latin1');
    return `${pid}-${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[BEGAN] ?? 0}`;
  } catch {
    return null;
  }
}
