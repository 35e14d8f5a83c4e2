import { readdirSync, readFileSync } from 'node:fs';

/** Seconds of CPU, by who used them while memory was given up. */
export interface CpuParts {
  /** The script that plays the driver, with its waiting. */
  readonly driver: number;
  readonly vmm: number;
  /** The daemon's event loop. */
  readonly rings: number;
  /** Threads that discard. */
  readonly discards: number;
}

export function partsBetween(before: CpuParts, after: CpuParts): CpuParts {
  return {
    driver: after.driver - before.driver,
    vmm: after.vmm - before.vmm,
    rings: after.rings - before.rings,
    discards: after.discards - before.discards,
  };
}

/** The same of a process's first thread alone. */
export function firstThreadSeconds(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'latin1').split(' ')[0]) / 1e9;
}

/** Seconds of CPU that a process and its threads have used, to the nanosecond (schedstat), by its pid. */
export function cpuSeconds(pid: number): number {
  const folder = `/proc/${pid}/task`;
  const nanoseconds = readdirSync(folder).map((thread) =>
    Number(readFileSync(`${folder}/${thread}/schedstat`, 'latin1').split(' ')[0]),
  );
  return nanoseconds.reduce((sum, value) => sum + value, 0) / 1e9;
}

export function residentMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}
