/** An axis that begins at 0: where it ends, and the round values at which it is labelled. */

export interface Scale {
  readonly max: number;
  readonly ticks: readonly number[];
}

const MIB = 2 ** 20;
const MEMORY_TICKS_MAX = 4;
const TIME_TICKS_MAX = 8;

/** Ends at a tick: a multiple of a power of two MiB. */
export function memoryScale(largestBytes: number): Scale {
  let step = MIB;
  while (largestBytes > step * MEMORY_TICKS_MAX) step *= 2;
  const max = Math.max(1, Math.ceil(largestBytes / step)) * step;
  return { max, ticks: multiples(step, max) };
}

/** Ends where the recording does; ticks are 1, 2 or 5 times a power of ten seconds apart. */
export function timeScale(lastSecond: number): Scale {
  const max = Math.max(1, lastSecond);
  let step = 1;
  for (let turn = 0; max > step * TIME_TICKS_MAX; turn++) step *= turn % 3 === 1 ? 2.5 : 2;
  return { max, ticks: multiples(step, max) };
}

function multiples(step: number, max: number): number[] {
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, n) => n * step);
}
