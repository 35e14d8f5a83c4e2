import { readFileSync } from 'node:fs';

/** Transparent huge pages of the whole host (/proc/vmstat): differences mean something when nothing else runs. */
export interface HugePageCounters {
  /** Made for files. */
  made: number;
  split: number;
}

export function hugePageCounters(): HugePageCounters {
  const text = readFileSync('/proc/vmstat', 'latin1');
  const counter = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
  return { made: counter('thp_file_alloc'), split: counter('thp_split_page') };
}
