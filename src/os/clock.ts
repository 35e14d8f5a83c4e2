// The clocks. The monotonic one measures how long something takes or is ago, the boot clock hands that to the next process,
// and wall time is for people alone: whoever keeps the host's time may set it by hours, forth and back. A Monotonic is no
// number, so that it cannot be taken for a wall time, nor subtracted from one, but by the functions here. The linter
// forbids Date.now() and new Date() everywhere else.
import { native } from './native.js';

declare const monotonicBrand: unique symbol;
declare const bootBrand: unique symbol;
declare const wallBrand: unique symbol;

/** A moment of this process. */
export interface Monotonic {
  readonly [monotonicBrand]: true;
}
/** Milliseconds since the host booted, the same in all processes; goes on while the host is suspended. */
export type BootMs = number & { readonly [bootBrand]: true };
/** Milliseconds since the epoch, for display: two of them may be in any order. */
export type WallMs = number & { readonly [wallBrand]: true };

export function monotonicNow(): Monotonic {
  return performance.now() as unknown as Monotonic;
}

/** Milliseconds from `moment` until now. */
export function msSince(moment: Monotonic): number {
  return performance.now() - (moment as unknown as number);
}

/** The moment `ms` milliseconds ago, also when this process had not begun yet. */
export function msAgo(ms: number): Monotonic {
  return (performance.now() - ms) as unknown as Monotonic;
}

/** Milliseconds until the next moment at which `periodMs` have passed once more: for what is to happen together. */
export function msUntilNext(periodMs: number): number {
  return periodMs - (performance.now() % periodMs);
}

/** `moment` as another process understands it. */
export function toBoot(moment: Monotonic): BootMs {
  return (bootNow() - msSince(moment)) as BootMs;
}

/** The moment that another process wrote down; one that has not come yet is now. */
export function fromBoot(written: BootMs): Monotonic {
  return msAgo(Math.max(0, bootNow() - written));
}

/** The same for what was written by wall time, which is right only as far as nobody has set that since. */
export function fromWall(written: WallMs): Monotonic {
  return msAgo(Math.max(0, wallNow() - written));
}

/** `moment` by the wall time of now. */
export function toWall(moment: Monotonic): WallMs {
  return (wallNow() - msSince(moment)) as WallMs;
}

export function wallNow(): WallMs {
  return Date.now() as WallMs;
}

/** The wall time of now as ISO 8601 has it, in UTC. */
export function wallTime(): string {
  return new Date().toISOString();
}

function bootNow(): BootMs {
  return (native.bootTime() / 1000) as BootMs;
}
