import { readFileSync, statfsSync } from 'node:fs';

const POOLS = '/sys/kernel/mm/hugepages';

/** The kernel's pool of huge pages of one size; numbers of pages, null where the host does not tell. */
export interface HugePagePool {
  readonly pageBytes: number;
  readonly total: number | null;
  /** Pages that no file has. Of these, so many are promised to files already. */
  readonly free: number | null;
  readonly reserved: number | null;
  /** Pages that the mount of the file may still have, where the mount has a limit (size=). */
  readonly mountFree: number | null;
}

/** The pool that a file on hugetlbfs, with pages of this size, gets its pages from. */
export function hugePagePool(fd: number, pageBytes: number): HugePagePool {
  const folder = `${POOLS}/hugepages-${pageBytes / 1024}kB`;
  const { blocks, bfree } = statfsSync(`/proc/self/fd/${fd}`);
  return {
    pageBytes,
    total: count(`${folder}/nr_hugepages`),
    free: count(`${folder}/free_hugepages`),
    reserved: count(`${folder}/resv_hugepages`),
    mountFree: blocks === 0 ? null : bfree,
  };
}

function count(path: string): number | null {
  try {
    return Number(readFileSync(path, 'latin1'));
  } catch {
    return null;
  }
}
