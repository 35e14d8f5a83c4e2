import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

const FIELD = /^(?:rchar|read_bytes): (\d+)$/gm;
const chunk = Buffer.allocUnsafeSlow(4096);

/** The bytes that one VMM read so far. It is looked at every few seconds, and the file stays open for that. */
export class VmmReads {
  readonly #path: string;
  #fd: number | null = null;

  constructor(pid: number, proc: string) {
    this.#path = join(proc, String(pid), 'io');
  }

  /** From disks or from the page cache of the host; NaN: the kernel does not say. */
  get bytes(): number {
    try {
      this.#fd ??= openSync(this.#path, 'r');
      const text = chunk.toString('latin1', 0, readSync(this.#fd, chunk, 0, chunk.length, 0));
      // A VMM may read by ways that only one of them counts.
      let most = NaN;
      for (const [, count] of text.matchAll(FIELD)) most = Math.max(most || 0, Number(count));
      return most;
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
