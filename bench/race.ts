import { setImmediate } from 'node:timers/promises';
import { allocatedBytes } from '../src/os/file.js';
import type { Contender, Discarding } from './contenders.js';
import { hugePageCounters } from './huge-page-counters.js';
import { PFN_PAGE_BYTES, type Pattern } from './patterns.js';
import { partsBetween, type CpuParts } from './process-cost.js';
import { nap } from './nap.js';

/** No host keeps pages longer that it will give back. */
const STALLED_MS = 300;

/** What one contender did with one pattern once. */
export interface Round {
  /** Of each kick, until its ack. */
  readonly micros: readonly number[];
  /** From the first kick until the file had given up all of the memory; null when it never did. */
  readonly freeSeconds: number | null;
  readonly freedBytes: number;
  readonly cpu: CpuParts;
  readonly hugePagesMade: number;
  readonly hugePagesSplit: number;
  /** Null where nobody counts it. */
  readonly discarding: Discarding | null;
}

/** A contender's rounds, in order. */
export interface Entry {
  readonly name: string;
  readonly rounds: readonly Round[];
}

/**
 * Contenders take turns, in each round from another start, so that whatever else the machine does meets them all.
 */
export async function race(
  contenders: readonly Contender[],
  pattern: Pattern,
  count: number,
): Promise<Entry[]> {
  const entries = contenders.map((contender) => ({ contender, rounds: [] as Round[] }));
  for (let round = 0; round < count; round++) {
    const first = round % entries.length;
    for (const { contender, rounds } of [...entries.slice(first), ...entries.slice(0, first)]) {
      rounds.push(await run(contender, pattern));
      // Signals are heard between two turns.
      await setImmediate();
    }
  }
  return entries.map(({ contender, rounds }) => ({ name: contender.name, rounds }));
}

async function run(contender: Contender, pattern: Pattern): Promise<Round> {
  const { memoryFd } = contender;
  const hugeBefore = hugePageCounters();
  const give = contender.ready(pattern);
  const discardingBefore = await contender.discarding();
  const hugeFull = hugePageCounters();
  const full = allocatedBytes(memoryFd);
  const goal = full - pattern.pfns.length * PFN_PAGE_BYTES;
  const cpuBefore = contender.cpu();

  const start = performance.now();
  const micros = give();
  let left = allocatedBytes(memoryFd);
  for (let moved = performance.now(); left > goal && performance.now() - moved < STALLED_MS;) {
    nap();
    const now = allocatedBytes(memoryFd);
    if (now < left) moved = performance.now();
    left = now;
  }
  const freeSeconds = left > goal ? null : (performance.now() - start) / 1000;

  const cpuAfter = contender.cpu();
  const discarding = await contender.discarding();
  return {
    micros,
    freeSeconds,
    freedBytes: full - left,
    cpu: partsBetween(cpuBefore, cpuAfter),
    hugePagesMade: hugeFull.made - hugeBefore.made,
    hugePagesSplit: hugePageCounters().split - hugeFull.split,
    discarding:
      discarding === null || discardingBefore === null
        ? null
        : {
            bytes: discarding.bytes - discardingBefore.bytes,
            seconds: discarding.seconds - discardingBefore.seconds,
          },
  };
}
