import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

const FIELD = /^(?:rchar|read_bytes): (\d+)$/gm;
const chunk = Buffer.allocUnsafeSlow(4096);

/**
 * The bytes that one VMM reads, from disks or from the page cache of the host. A VMM may read by ways of which the kernel counts each
 * in one of two figures, so the figure that rose by more counts each time. The file stays open from one look to the next.
 */
export class VmmReads {
  readonly #path: string;
  #fd: number | null = null;
  #counts: readonly number[] = [];
  #total = 0;

  constructor(pid: number, proc: string) {
    this.#path = join(proc, String(pid), 'io');
  }

  /** In all, up to this look; NaN: the kernel does not say. */
  get bytes(): number {
    try {
      this.#fd ??= openSync(this.#path, 'r');
      const text = chunk.toString('latin1', 0, readSync(this.#fd, chunk, 0, chunk.length, 0));
      const counts = [...text.matchAll(FIELD)].map(([, count]) => Number(count));
      if (counts.length === 0) return NaN;
      this.#total += Math.max(0, ...counts.map((count, at) => count - (this.#counts[at] ?? 0)));
      this.#counts = counts;
      return this.#total;
    } catch {
      this.close();
      return NaN;
    }
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}
