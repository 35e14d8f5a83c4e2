import { statfsSync } from 'node:fs';
import { join } from 'node:path';
import { readKernelFile } from './kernel-file.js';

/** The kernel's folder of all pools. */
export const POOLS = '/sys/kernel/mm/hugepages';

/** Numbers of pages of a pool; null where the host does not tell. */
interface HugePageCounts {
  readonly total: number | null;
  /** Pages that no file has. Of these, so many are promised to files already. */
  readonly free: number | null;
  readonly reserved: number | null;
  /** Pages of `total` beyond the number that was reserved for the pool: they leave the pool when they are freed. */
  readonly surplus: number | null;
}

/** The kernel's pool of huge pages of one size, as a file sees the pool. */
export interface HugePagePool extends HugePageCounts {
  readonly pageBytes: number;
  /** Pages that the mount of the file may still have, where the mount has a limit (size=). */
  readonly mountFree: number | null;
}

/** The pool that a file on hugetlbfs, with pages of this size, gets its pages from. */
export function hugePagePool(fd: number, pageBytes: number): HugePagePool {
  const { blocks, bfree } = statfsSync(`/proc/self/fd/${fd}`);
  const mountFree = blocks === 0 ? null : bfree;
  return { pageBytes, ...hugePageCounts(pageBytes), mountFree };
}

/** The numbers of the pool whose pages have this size; `pools` is the folder of all pools. */
export function hugePageCounts(pageBytes: number, pools = POOLS): HugePageCounts {
  const folder = join(pools, `hugepages-${pageBytes / 1024}kB`);
  return {
    total: count(join(folder, 'nr_hugepages')),
    free: count(join(folder, 'free_hugepages')),
    reserved: count(join(folder, 'resv_hugepages')),
    surplus: count(join(folder, 'surplus_hugepages')),
  };
}

function count(path: string): number | null {
  try {
    return Number(readKernelFile(path));
  } catch {
    return null;
  }
}
