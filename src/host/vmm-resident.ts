/** The memory of a process that is on the host, as the kernel counts it all the time: nothing is walked for it. */
import { readKernelFile } from '../os/file.js';
import { HOST_PATHS } from './host-paths.js';

/** Memory of the process itself, and files in memory that it shares; 0 where it is gone or may not be looked at. */
export function residentBytes(pid: number, proc = HOST_PATHS.proc): number {
  const status = read(`${proc}/${pid}/status`);
  return ['RssAnon', 'RssShmem', 'HugetlbPages'].reduce((sum, name) => sum + bytesOf(status, name), 0);
}

/**
 * The size of the pages of the pool that most of a guest's memory is in; null: it is in no pool. The kernel says how much the
 * process has of all pools, so it is taken to be of the pool that a process gets which names none.
 */
export function poolPageBytes(pid: number, ramBytes: number, proc = HOST_PATHS.proc): number | null {
  if (bytesOf(read(`${proc}/${pid}/status`), 'HugetlbPages') <= ramBytes / 2) return null;
  return bytesOf(read(`${proc}/meminfo`), 'Hugepagesize') || null;
}

function bytesOf(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024;
}

function read(path: string): string {
  try {
    return readKernelFile(path);
  } catch {
    return '';
  }
}
