/** Huge pages for a test, reserved at run time where that is allowed. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Test } from 'tap';

export const HUGE_PAGE_BYTES = 2 * 1024 * 1024;
const FOLDER = '/sys/kernel/mm/hugepages/hugepages-2048kB';

function read(name: string): number {
  return Number(readFileSync(`${FOLDER}/${name}`, 'latin1'));
}

/** Whether `count` pages were reserved, on top of those that others have; they go back when the test ends. */
export function reserveHugePages(t: Test, count: number): boolean {
  try {
    const before = read('nr_hugepages');
    writeFileSync(`${FOLDER}/nr_hugepages`, String(before + count));
    t.teardown(() => writeFileSync(`${FOLDER}/nr_hugepages`, String(read('nr_hugepages') - count)));
    return read('nr_hugepages') >= before + count;
  } catch {
    return false;
  }
}
