/** Samples of what the host has allocated to a guest with a disk, until they rest. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Guest } from '../test/support/lab/guest.js';
import { median } from './table.js';

export interface Measured {
  readonly workingSetMib: number;
  /** When nothing is read any more and the figure rests. */
  readonly settledMib: number;
  /** While the disk is read: of samples that begin when all memory was read once. */
  readonly streamMib: { readonly median: number; readonly least: number; readonly most: number };
  readonly streamMibPerSecond: number;
  /** Of what is read over and over, the part that came from the disk. */
  readonly readAgainShare?: number;
  /** Pages of the working set that were not as they were written. */
  readonly damagedPages: number;
}

export const DISK = '/dev/nvme0n1';
export const LOOK_MS = 500;
/** It rests when it changed by less than a hundredth in so many samples, by default. */
const RESTING_SAMPLES = 40;
const SETTLE_SAMPLES_MAX = 240;
const MIB = 2 ** 20;

/** Resolves with the figure when it rests for so many samples, or does not for a long time. */
export async function rest(sample: () => number, resting = RESTING_SAMPLES): Promise<number> {
  const samples: number[] = [];
  while (samples.length < SETTLE_SAMPLES_MAX) {
    await pause(LOOK_MS);
    samples.push(sample());
    const last = samples.slice(-resting);
    if (last.length === resting && Math.max(...last) - Math.min(...last) < Math.max(...last) / 100) break;
  }
  return median(samples.slice(-resting));
}

/** The device of the disk with this serial number, of several. */
export async function diskOf(guest: Guest, serial: string): Promise<string> {
  const { output } = await guest.sh(`grep -l '^${serial} *$' /sys/block/nvme*/device/serial`);
  const disk = /nvme\d+n1/.exec(output)?.[0];
  if (disk === undefined) throw new Error(`the guest has no disk ${serial}: ${output}`);
  return `/dev/${disk}`;
}

/** Read from the disk since the guest is up. */
export async function readMib(guest: Guest, disk = DISK): Promise<number> {
  const { output } = await guest.sh(`cat /sys/block/${disk.slice('/dev/'.length)}/stat`);
  return (Number(output.trim().split(/\s+/)[2]) * 512) / MIB;
}

/** What the host had allocated, so many seconds after a beginning. */
export interface HostSample {
  readonly seconds: number;
  readonly mib: number;
}

/** The memory that samples stand for until this second, where lines connect them and the first is at the beginning. */
export function gibMinutes(samples: readonly HostSample[], untilSeconds: number): number {
  let sum = 0;
  for (const [n, to] of samples.entries()) {
    const from = samples[n - 1];
    if (from === undefined || from.seconds >= untilSeconds) continue;
    const seconds = Math.min(to.seconds, untilSeconds) - from.seconds;
    const slope = (to.mib - from.mib) / (to.seconds - from.seconds);
    sum += seconds * (from.mib + (slope * seconds) / 2);
  }
  return sum / 1024 / 60;
}
