/** What should be absent from the files of guest memory, compared with what they hold. */
import { residentBytes, type ResidentMethod } from '../os/resident.js';
import { PAGE_BYTES, type GuestRegion } from './region.js';

/** Asked about at once: half a millisecond of work where the file holds all of it, and some microseconds where it is a hole. */
const BATCH_RANGES = 64;
const BATCH_PAGES = 16_384;

/** A run of pages of one block that are in the balloon, owe no discard, and of which the file holds some. */
export interface Present {
  readonly region: GuestRegion;
  readonly block: number;
  readonly first: number;
  readonly count: number;
  /** What the file holds of them. */
  readonly bytes: number;
}

interface Run {
  readonly first: number;
  readonly count: number;
}

const ranges = new Float64Array(2 * BATCH_RANGES);
const held = new Float64Array(BATCH_RANGES);

/** Runs of pages that should be absent: they are in the balloon and owe no discard. Of larger backing pages whole ones. */
export function* discardedRuns({ ledger, file, lead }: GuestRegion): Generator<Run, undefined> {
  const unit = file.pageBytes / PAGE_BYTES;
  const ahead = lead / PAGE_BYTES;
  for (const { first, count } of ledger.ballooned.runs()) {
    const end = first + count;
    let at = first;
    const owed = ledger.pending.size === 0 ? [] : ledger.pending.runs(first, end);
    for (const { first: stop, count: skipped } of [...owed, { first: end, count: 0 }]) {
      const from = Math.ceil((at + ahead) / unit) * unit - ahead;
      const to = Math.floor((stop + ahead) / unit) * unit - ahead;
      if (from < to) yield { first: from, count: to - from };
      at = stop + skipped;
    }
  }
}

/** Whether the kernel can say what the file of a region holds. Of hugetlbfs it cannot. */
export function isComparable({ file, lost }: GuestRegion): boolean {
  return file.kind === 'shmem' && !lost;
}

/**
 * Finds what the files hold of what should be absent, cut at the blocks of the ledger. A step asks about some runs. Null: the
 * regions changed meanwhile. Throws SystemError.
 */
export function* findPresent(
  memory: { readonly regions: readonly GuestRegion[] },
  method: ResidentMethod,
): Generator<undefined, Present[] | null> {
  const { regions } = memory;
  const found: Present[] = [];
  for (const region of regions) {
    if (!isComparable(region)) continue;
    for (const runs of batches(region)) {
      for (const present of presentOf(region, runs, method)) found.push(present);
      yield;
      if (memory.regions !== regions) return null;
    }
  }
  return found;
}

function* batches(region: GuestRegion): Generator<Run[], undefined> {
  let batch: Run[] = [];
  let pages = 0;
  for (const run of discardedRuns(region)) {
    for (let done = 0; done < run.count; done += BATCH_PAGES) {
      const part = { first: run.first + done, count: Math.min(BATCH_PAGES, run.count - done) };
      if (batch.length === BATCH_RANGES || pages + part.count > BATCH_PAGES) {
        yield batch;
        batch = [];
        pages = 0;
      }
      batch.push(part);
      pages += part.count;
    }
  }
  if (batch.length > 0) yield batch;
}

function presentOf(region: GuestRegion, runs: readonly Run[], method: ResidentMethod): Present[] {
  ask(region, runs, method);
  const suspects = runs.filter((_, n) => (held[n] ?? 0) > 0);
  const pieces = suspects.flatMap((run) => inBlocks(region, run));
  const present: Present[] = [];
  for (let at = 0; at < pieces.length; at += BATCH_RANGES) {
    const some = pieces.slice(at, at + BATCH_RANGES);
    ask(region, some, method);
    for (const [n, piece] of some.entries()) {
      const bytes = held[n] ?? 0;
      if (bytes > 0) present.push({ region, ...piece, bytes });
    }
  }
  return present;
}

function ask(region: GuestRegion, runs: readonly Run[], method: ResidentMethod): void {
  for (const [n, { first, count }] of runs.entries()) {
    ranges[2 * n] = region.lead + first * PAGE_BYTES;
    ranges[2 * n + 1] = count * PAGE_BYTES;
  }
  residentBytes(region.mapping, region.fd, ranges, runs.length, held, method);
}

function inBlocks({ ledger }: GuestRegion, { first, count }: Run): (Run & { block: number })[] {
  const pieces: (Run & { block: number })[] = [];
  for (let at = first; at < first + count;) {
    const block = ledger.blockOf(at);
    const { first: start, count: pages } = ledger.block(block);
    const end = Math.min(first + count, start + pages);
    pieces.push({ block, first: at, count: end - at });
    at = end;
  }
  return pieces;
}
