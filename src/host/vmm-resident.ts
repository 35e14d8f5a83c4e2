/**
 * The memory that a process takes from the host, as the kernel counts it all the time: nothing is walked for it. The host's swap is part of
 * it: what a VM has there is in use.
 */
import { readdirSync, statfsSync, statSync } from 'node:fs';
import { readKernelFile } from '../os/kernel-file.js';
import { HOST_PATHS } from './host-paths.js';
import { mappingsOf } from './mappings.js';

/** A reading is good for so long: several ask at once. */
const FRESH_MS = 500;
/** Files are looked for so often: memory may be plugged in. */
const FIND_MS = 600_000;
/** Smaller files are not the RAM of a guest. */
const LEAST_FILE_BYTES = 2n ** 24n;
/** Magic number of statfs(2) (linux/magic.h). */
const TMPFS_MAGIC = 0x01021994;
const BLOCK_BYTES = 512;

export class ResidentMemory {
  readonly #pid: number;
  readonly #proc: string;
  readonly #freshMs: number;
  #bytes = 0;
  #pooledBytes = 0;
  #readAt = -Infinity;
  /** Files in memory that the process maps, as names in its folder of open files. */
  #files: readonly string[] = [];
  #foundAt = -Infinity;

  constructor(pid: number, proc = HOST_PATHS.proc, freshMs = FRESH_MS) {
    this.#pid = pid;
    this.#proc = proc;
    this.#freshMs = freshMs;
  }

  /**
   * Memory of the process itself, and files in memory that it maps, on the host or in its swap; 0 where the process is gone. Of a process whose
   * open files may not be looked at, the pages of files count that it maps now.
   */
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
    const files = Math.max(bytesOf(status, 'RssShmem'), this.#fileBytes(now));
    this.#bytes = bytesOf(status, 'RssAnon') + bytesOf(status, 'VmSwap') + files + this.#pooledBytes;
  }

  /** VmSwap leaves out files (Documentation/filesystems/proc.rst), whose blocks tell of pages in swap and of pages under private copies. */
  #fileBytes(now: number): number {
    try {
      if (now - this.#foundAt >= FIND_MS) {
        this.#foundAt = now;
        this.#files = this.#find();
      }
      return this.#files.reduce((sum, file) => sum + statSync(file).blocks * BLOCK_BYTES, 0);
    } catch {
      this.#files = [];
      return 0;
    }
  }

  #find(): string[] {
    const mapped = new Set<string>();
    for (const { file, start, end } of mappingsOf(this.#pid, this.#proc)) {
      if (file !== null && end - start >= LEAST_FILE_BYTES) mapped.add(file);
    }
    if (mapped.size === 0) return [];
    const folder = `${this.#proc}/${this.#pid}/fd`;
    return readdirSync(folder).flatMap((name) => {
      const path = `${folder}/${name}`;
      const file = fileOf(path);
      // Of a file that is open twice, the first.
      return file !== null && mapped.delete(file) && statfsSync(path).type === TMPFS_MAGIC ? [path] : [];
    });
  }
}

/** Device and inode, as /proc/PID/maps says them; null: it was closed meanwhile. */
function fileOf(path: string): string | null {
  const { dev, ino } = statSync(path, { bigint: true, throwIfNoEntry: false }) ?? {};
  if (dev === undefined || ino === undefined) return null;
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn & 0xffff_ffffn);
  const hex = (number: bigint): string => number.toString(16).padStart(2, '0');
  return `${hex(major)}:${hex(minor)} ${ino}`;
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
