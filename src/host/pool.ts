import { hugePageCounts } from '../os/huge-pages.js';

/** The memory of a pool of huge pages, in bytes. */
interface PoolReading {
  /** The pages that were reserved for the pool. A pool that shrank below its use is to have so many, and still has more. */
  readonly totalBytes: number;
  /** The pages that no program has, and that none was promised. */
  readonly availableBytes: number;
}

/** Reads the pool of pages of this size; `pools` is the folder of all pools. Null: the host has no such pool. */
export function readPool(pools: string, pageBytes: number): PoolReading | null {
  const { total, free, reserved, surplus } = hugePageCounts(pageBytes, pools);
  if (total === null || free === null) return null;
  const pages = Math.max(0, total - (surplus ?? 0));
  const available = Math.min(pages, Math.max(0, free - (reserved ?? 0)));
  return { totalBytes: pages * pageBytes, availableBytes: available * pageBytes };
}
