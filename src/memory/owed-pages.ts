/**
 * Pages that owe a discard: which pages come to owe one as the guest gives memory up and takes memory back. Pages come to owe
 * their discard again only where the driver tells before it uses a page of the balloon (`tellsFirst`: it acked
 * VIRTIO_BALLOON_F_MUST_TELL_HOST). Another driver may have such a page in use, so that all functions here ask for that.
 */
import { PAGE_BYTES, type GuestRegion } from './region.js';

/** The guest gives up pages first to first + count - 1: they are in the balloon and owe their discard. */
export function inflatePages(region: GuestRegion, first: number, count: number, tellsFirst: boolean): void {
  // One that was given up already may have been touched all the same, which brought its whole backing page back.
  if (region.ledger.inflate(first, count) < count) oweBackingPages(region, first, count, tellsFirst);
}

/**
 * The guest takes back pages first to first + count - 1: they leave the balloon, and pages that shared a larger
 * backing page with them owe their discard again, since the guest's next touch brings the whole of it back.
 * Returns how many pages were in the balloon.
 */
export function deflatePages(region: GuestRegion, first: number, count: number, tellsFirst: boolean): number {
  const removed = region.ledger.deflate(first, count);
  if (removed > 0) oweBackingPages(region, first, count, tellsFirst);
  return removed;
}

/** What is in the balloon of pages first to first + count - 1 owes its discard once more. Returns how many pages that are. */
export function oweAgain({ ledger }: GuestRegion, first: number, count: number, tellsFirst: boolean): number {
  if (!tellsFirst) return 0;
  let pages = 0;
  for (const run of ledger.ballooned.runs(first, first + count)) {
    ledger.pending.add(run.first, run.count);
    ledger.refresh(run.first, run.count);
    pages += run.count;
  }
  return pages;
}

/** What is in the balloon of the larger backing pages that these pages touch owes its discard. */
export function oweBackingPages(
  region: GuestRegion,
  first: number,
  count: number,
  tellsFirst: boolean,
): void {
  const unit = region.file.pageBytes;
  if (!tellsFirst || unit === PAGE_BYTES) return;
  const from = Math.floor((region.lead + first * PAGE_BYTES) / unit) * unit - region.lead;
  const to = Math.ceil((region.lead + (first + count) * PAGE_BYTES) / unit) * unit - region.lead;
  const end = Math.min(to, region.sizeBytes) / PAGE_BYTES;
  for (const run of region.ledger.ballooned.runs(Math.max(0, from / PAGE_BYTES), end)) {
    region.ledger.pending.add(run.first, run.count);
  }
}

/** The backing pages larger than 4 KiB that the pages touch and that owe their discard as a whole, as runs. */
export function* owedBackingPages(
  region: GuestRegion,
  first: number,
  count: number,
): Generator<{ first: number; count: number }> {
  const { lead, ledger, sizeBytes } = region;
  const unit = region.file.pageBytes;
  const from = Math.floor((lead + first * PAGE_BYTES) / unit) * unit;
  const to = lead + (first + count) * PAGE_BYTES;
  for (let at = from; at < to; at += unit) {
    const start = at - lead;
    if (start < 0 || start + unit > sizeBytes) continue;
    const pages = { first: start / PAGE_BYTES, count: unit / PAGE_BYTES };
    if (ledger.pending.covers(pages.first, pages.count)) yield pages;
  }
}
