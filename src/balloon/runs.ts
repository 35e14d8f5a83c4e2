/** Buffers that name pages: page frame numbers of 32 bits, or with RANGES blocks of pages. */
import { CacheBalloonFeature } from '../../protocol/virtio/cache-balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { DriverError } from '../memory/errors.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { GuestRegion } from '../memory/region.js';
import { readChain, type Chain } from '../virtqueue/chain.js';
import { BlockRuns } from './block-runs.js';
import { PageRuns } from './page-runs.js';
import { cutRun } from './page-slices.js';

/** Longest buffer: 8,192 pages or 4,096 blocks; Linux sends 256 of them, Windows and FreeBSD 1,024 pages. */
const MAX_BUFFER_BYTES = 32 * 1024;

/** Where buffers are copied before they are looked at. */
const scratch = new Uint8Array(MAX_BUFFER_BYTES);

/** What buffers of one queue name, until it is drained. */
export type Runs = PageRuns | BlockRuns;

/** For a driver that acked these features. */
export function runsOf(acked: FeatureBits): Runs {
  return hasFeature(acked, CacheBalloonFeature.VIRTIO_CACHE_BALLOON_F_RANGES)
    ? new BlockRuns()
    : new PageRuns();
}

/** The device-readable bytes of a chain. They are valid until the next call. */
export function readBuffer(memory: GuestMemory, chain: Chain): Uint8Array {
  return readChain(memory, chain, scratch);
}

/** Adds all that a chain names, or nothing: throws DriverError. */
export function readRuns(memory: GuestMemory, chain: Chain, runs: Runs): void {
  const bytes = readBuffer(memory, chain);
  if (bytes.length % runs.entryBytes !== 0) {
    throw new DriverError(`entries in ${bytes.length} bytes, not a multiple of ${runs.entryBytes}`);
  }
  runs.add(bytes);
}

/**
 * Empties `runs`, cut at the borders of regions. Returns how many pages the runs have, also those in no region, which
 * `outside` is told of.
 */
export function drainRuns(
  memory: GuestMemory,
  runs: Runs,
  outside: (pages: number) => void,
  visit: (region: GuestRegion, first: number, count: number) => void,
): number {
  let without = 0;
  let all = 0;
  runs.drain((firstPfn, pages) => {
    all += pages;
    without += cutRun(memory, firstPfn, pages, visit);
  });
  if (without > 0) outside(without);
  return all;
}
