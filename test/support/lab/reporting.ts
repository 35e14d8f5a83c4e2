/** What a guest's kernel says of its free page reporting. */
import type { Guest } from './guest.js';

/** Linux begins to report when a zone has this many blocks free beyond its low watermark (PAGE_REPORTING_CAPACITY). */
const BLOCKS = 32;

export interface Zone {
  readonly name: string;
  readonly freeBytes: number;
  /** Has so much free that Linux reports its free blocks. */
  readonly reports: boolean;
}

/** Bytes of a block that the guest reports as a whole, by the order that its kernel has chosen. */
export async function blockBytes(guest: Guest, pageBytes: number): Promise<number> {
  const order = await guest.sh('cat /sys/module/page_reporting/parameters/page_reporting_order');
  return pageBytes * 2 ** Number(order.output);
}

export async function zones(guest: Guest, pageBytes: number): Promise<Zone[]> {
  const block = await blockBytes(guest, pageBytes);
  const { output } = await guest.sh('cat /proc/zoneinfo');
  const found = output.matchAll(/^Node \d+, zone +(\S+)\n[^]*?pages free +(\d+)\n[^]*? low +(\d+)\n/gm);
  return Array.from(found, ([, name = '', free, low]) => {
    const freeBytes = Number(free) * pageBytes;
    return { name, freeBytes, reports: freeBytes > Number(low) * pageBytes + BLOCKS * block };
  });
}

/** Waits by the guest's own clock until its kernel has reported what was freed before (its delay is 2 s). */
export async function letReport(guest: Guest, timeoutMs: number): Promise<void> {
  await guest.sh('sleep 10', timeoutMs);
}
