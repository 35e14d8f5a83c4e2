/**
 * A guest that reads a part of a disk over and over, after it read as much as it has memory of the rest once: what the host has
 * allocated to it, how fast it reads, and how much of that comes from the disk again.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Guest } from '../test/support/lab/guest.js';
import { DISK, LOOK_MS, readMib, rest, type Measured } from './host-samples.js';
import { median } from './table.js';

/** Samples are taken for so long, when the figure rests. */
const SAMPLE_MS = 15_000;
/** The policy may leave the page cache alone for 20 s before it goes on: a step hurts while the set is read for the first time. */
const RESTING_SAMPLES = 60;
const READ_ONCE_TIMEOUT_MS = 120_000;

export async function reread(
  guest: Guest,
  memoryMib: number,
  workingSetMib: number,
  sample: (reading: boolean) => number,
): Promise<Measured> {
  await guest.sh(`dd if=${DISK} of=/dev/null bs=1M skip=2048 count=${memoryMib} 2>&1`, READ_ONCE_TIMEOUT_MS);
  await guest.sh(
    `(n=0; while :; do dd if=${DISK} of=/dev/null bs=1M count=${workingSetMib} 2>/dev/null; n=$((n+1)); echo $n >/n; done) >/dev/null 2>&1 &`,
  );
  await rest(() => sample(true), RESTING_SAMPLES);
  const samples: number[] = [];
  const [loopsBefore, readBefore, start] = [await loops(guest), await readMib(guest), performance.now()];
  while (performance.now() - start < SAMPLE_MS) {
    await pause(LOOK_MS);
    samples.push(sample(true));
  }
  const readMore = (await readMib(guest)) - readBefore;
  const mib = ((await loops(guest)) - loopsBefore) * workingSetMib;
  return {
    workingSetMib,
    settledMib: median(samples),
    streamMib: { median: median(samples), least: Math.min(...samples), most: Math.max(...samples) },
    streamMibPerSecond: (mib / (performance.now() - start)) * 1000,
    readAgainShare: readMore / mib,
    damagedPages: 0,
  };
}

async function loops(guest: Guest): Promise<number> {
  return Number((await guest.sh('cat /n')).output);
}
