import { join } from 'node:path';
import { readKernelFile } from '../os/kernel-file.js';

/** The bytes that a VMM read so far, from disks or from the page cache of the host; NaN: the kernel does not say. */
export function vmmReadBytes(pid: number, proc: string): number {
  try {
    const text = readKernelFile(join(proc, String(pid), 'io'));
    const counts = [...text.matchAll(/^(?:rchar|read_bytes): (\d+)$/gm)].map(([, count]) => Number(count));
    // A VMM may read by ways that only one of them counts.
    return counts.length === 0 ? NaN : Math.max(...counts);
  } catch {
    return NaN;
  }
}
