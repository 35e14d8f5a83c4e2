import { join } from 'node:path';
import { readKernelFile } from '../os/kernel-file.js';

const FIELD = /^(?:rchar|read_bytes): (\d+)$/gm;

/**
 * The bytes that one VMM reads, from disks or from the page cache of the host. A VMM may read by ways of which the kernel counts each
 * in one of two figures, so the figure that rose by more counts each time.
 */
export class VmmReads {
  readonly #path: string;
  #counts: readonly number[] = [];
  #total = 0;

  constructor(pid: number, proc: string) {
    this.#path = join(proc, String(pid), 'io');
  }

  /** In all, up to this look; NaN: the kernel does not say. */
  get bytes(): number {
    try {
      const counts = [...readKernelFile(this.#path).matchAll(FIELD)].map(([, count]) => Number(count));
      if (counts.length === 0) return NaN;
      this.#total += Math.max(0, ...counts.map((count, at) => count - (this.#counts[at] ?? 0)));
      this.#counts = counts;
      return this.#total;
    } catch {
      return NaN;
    }
  }
}
