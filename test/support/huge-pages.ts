/** Huge pages for a test, reserved at run time where that is allowed. */
import { execFileSync } from 'node:child_process';
import { ftruncateSync, mkdtempSync, openSync, rmdirSync, statfsSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { Mapping } from '../../src/os/mapping.js';

export const HUGE_PAGE_BYTES = 2 * 1024 * 1024;

/**
 * Whether `count` pages were reserved, on top of those that others have; they go back when the test ends. Test files that run
 * at the same time each add to the one figure of the host, one after the other.
 */
export function reserveHugePages(t: Test, count: number, pageBytes = HUGE_PAGE_BYTES): boolean {
  const file = `/sys/kernel/mm/hugepages/hugepages-${pageBytes / 1024}kB/nr_hugepages`;
  const add = (more: number): number => {
    const script = 'n=$(cat "$1") && echo $((n + $2)) >"$1" && echo $(($(cat "$1") - n))';
    const lock = join(tmpdir(), 'balloond-huge-pages.lock');
    const args = [lock, 'sh', '-c', script, 'sh', file, String(more)];
    return Number(execFileSync('flock', args, { encoding: 'latin1' }));
  };
  try {
    const got = add(count);
    t.teardown(() => add(-got));
    return got === count;
  } catch {
    return false;
  }
}

/** A pool of huge pages for one test alone: a mount of hugetlbfs that may have so many, which the host reserves for it. */
export class OwnPool {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Ends with the test. Throws where this host lends no pages, or lets nobody mount. */
  static make(t: Test, pages: number): OwnPool {
    if (!reserveHugePages(t, pages)) throw new Error(`the host has no ${pages} huge pages to lend`);
    const folder = mkdtempSync(join(tmpdir(), 'balloond-pool-'));
    const options = `size=${pages * HUGE_PAGE_BYTES},pagesize=${HUGE_PAGE_BYTES}`;
    execFileSync('mount', ['-t', 'hugetlbfs', '-o', options, 'none', folder]);
    t.teardown(() => {
      execFileSync('umount', ['--lazy', folder]);
      rmdirSync(folder);
    });
    return new OwnPool(folder);
  }

  /** Pages that the mount may still have. */
  get free(): number {
    return statfsSync(this.folder).bfree;
  }

  /** A file of `sizeBytes`, which has no page yet; the fd is the caller's. */
  createFile(sizeBytes: number): { fd: number; sizeBytes: number } {
    const path = join(this.folder, 'file');
    const fd = openSync(path, 'w+');
    unlinkSync(path);
    ftruncateSync(fd, sizeBytes);
    return { fd, sizeBytes };
  }

  /** Another program takes `pages` of the pool, until the function that is returned is called. */
  take(pages: number): () => void {
    const { fd } = this.createFile(pages * HUGE_PAGE_BYTES);
    const mapping = Mapping.map(fd, 0, pages * HUGE_PAGE_BYTES);
    for (let page = 0; page < pages; page++) mapping.write(page * HUGE_PAGE_BYTES, Uint8Array.of(1), 0, 1);
    const missed = mapping.faults;
    mapping.close();
    if (missed > 0) {
      closeFd(fd);
      throw new Error(`the pool had ${missed} of ${pages} pages too few for another program`);
    }
    return () => closeFd(fd);
  }
}
