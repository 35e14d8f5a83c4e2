// 2 MiB pages of the host, borrowed.
import { readFileSync, writeFileSync } from 'node:fs';

const NR_HUGEPAGES = '/proc/sys/vm/nr_hugepages';

function change(by: number): number {
  writeFileSync(NR_HUGEPAGES, String(Number(readFileSync(NR_HUGEPAGES, 'utf8')) + by));
  return Number(readFileSync(NR_HUGEPAGES, 'utf8'));
}

/** Reserves `count` more; returns what gives them back. Throws when the host has not that many to give. */
export function reserveHugePages(count: number): () => void {
  const wanted = Number(readFileSync(NR_HUGEPAGES, 'utf8')) + count;
  const release = (): void => {
    change(-count);
  };
  if (change(count) >= wanted) return release;
  release();
  throw new Error(`the host has no ${count} huge pages to give`);
}
