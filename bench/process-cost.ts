import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

/** Seconds of CPU, by who used them while memory was given up. */
export interface CpuParts {
  /** The script that plays the driver, with its waiting. */
  readonly driver: number;
  readonly vmm: number;
  /** The daemon's event loop. */
  readonly rings: number;
  /** Threads that discard. */
  readonly discards: number;
  /** Not used: how long those threads wanted a core that others had. */
  readonly discardsWaiting: number;
}

export function partsBetween(before: CpuParts, after: CpuParts): CpuParts {
  return {
    driver: after.driver - before.driver,
    vmm: after.vmm - before.vmm,
    rings: after.rings - before.rings,
    discards: after.discards - before.discards,
    discardsWaiting: after.discardsWaiting - before.discardsWaiting,
  };
}

/**
 * Seconds that threads ran, and that they waited for a core (Documentation/scheduler/sched-stats.rst,
 * /proc/PID/schedstat).
 */
export interface ThreadSeconds {
  readonly ran: number;
  readonly waited: number;
}

/** Of a process by its pid: its first thread, and all others together. */
export function threadSeconds(pid: number): { first: ThreadSeconds; others: ThreadSeconds } {
  const folder = `/proc/${pid}/task`;
  const first = schedstat(`${folder}/${pid}`);
  const others = readdirSync(folder)
    .filter((thread) => thread !== String(pid))
    .map((thread) => schedstat(`${folder}/${thread}`))
    .reduce((sum, { ran, waited }) => ({ ran: sum.ran + ran, waited: sum.waited + waited }), {
      ran: 0,
      waited: 0,
    });
  return { first, others };
}

/** Seconds of CPU that a process and its threads have used, to the nanosecond, by its pid. */
export function cpuSeconds(pid: number): number {
  const { first, others } = threadSeconds(pid);
  return first.ran + others.ran;
}

function schedstat(folder: string): ThreadSeconds {
  const [ran, waited] = readFileSync(`${folder}/schedstat`, 'latin1').split(' ');
  return { ran: Number(ran) / 1e9, waited: Number(waited) / 1e9 };
}

/** The CPU that a process uses in so many seconds from now on, in percent of a core. */
export async function busyPercent(pid: number, seconds: number): Promise<number> {
  const before = cpuSeconds(pid);
  await pause(seconds * 1000);
  return ((cpuSeconds(pid) - before) / seconds) * 100;
}

/** KiB of a process: resident, of that shared fairly with those who map it too, and nobody else's. */
export function memoryKib(pid: number): Record<'Rss' | 'Pss' | 'Pss_Anon', number> {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1');
  const of = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]);
  return { Rss: of('Rss'), Pss: of('Pss'), Pss_Anon: of('Pss_Anon') };
}

export function residentMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

/** How often the threads of a process left a core, by waiting or because it was taken from them; by its pid. */
export function contextSwitches(pid: number): number {
  let sum = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
    for (const [, count] of status.matchAll(/^(?:non)?voluntary_ctxt_switches:\s+(\d+)/gm))
      sum += Number(count);
  }
  return sum;
}
