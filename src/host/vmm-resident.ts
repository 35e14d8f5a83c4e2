/**
 * The memory that a process takes from the host, as the kernel counts it all the time: nothing is walked for it. The host's swap is part of
 * it: what a VM has there is in use. Of files that the process shares, the kernel does not say how much is in swap.
 */
import { readKernelFile } from '../os/kernel-file.js';
import { HOST_PATHS } from './host-paths.js';

/** A reading is good for so long: several ask at once. */
const FRESH_MS = 500;

export class ResidentMemory {
  readonly #pid: number;
  readonly #proc: string;
  readonly #freshMs: number;
  #bytes = 0;
  #pooledBytes = 0;
  #readAt = -Infinity;

  constructor(pid: number, proc = HOST_PATHS.proc, freshMs = FRESH_MS) {
    this.#pid = pid;
    this.#proc = proc;
    this.#freshMs = freshMs;
  }

  /** Memory of the process itself, in swap of the host as well, and files in memory that it shares; 0 where it is gone or may not be looked at. */
  get bytes(): number {
    this.#read();
    return this.#bytes;
  }

  /**
   * The size of the pages of the pool that most of a guest's memory is in; null: it is in no pool. The kernel says how much the
   * process has of all pools, so it is taken to be of the pool that a process gets which names none.
   */
  poolPageBytes(ramBytes: number): number | null {
    this.#read();
    if (this.#pooledBytes <= ramBytes / 2) return null;
    return bytesOf(read(`${this.#proc}/meminfo`), 'Hugepagesize') || null;
  }

  #read(): void {
    const now = performance.now();
    if (now - this.#readAt < this.#freshMs) return;
    this.#readAt = now;
    const status = read(`${this.#proc}/${this.#pid}/status`);
    this.#pooledBytes = bytesOf(status, 'HugetlbPages');
    const own = bytesOf(status, 'RssAnon') + bytesOf(status, 'VmSwap');
    this.#bytes = own + bytesOf(status, 'RssShmem') + this.#pooledBytes;
  }
}

/** Of a line such as `RssAnon:     1234 kB`; 0 without one. */
function bytesOf(text: string, name: string): number {
  const at = text.indexOf(`\n${name}:`);
  return at < 0 ? 0 : (Number.parseInt(text.slice(at + name.length + 2), 10) || 0) * 1024;
}

/** Empty where it may not be read. */
function read(path: string): string {
  try {
    return readKernelFile(path);
  } catch {
    return '';
  }
}
