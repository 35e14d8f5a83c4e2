/**
 * How often a time fell between fixed bounds, in seconds. Counting is a few comparisons and one store: it may be done for
 * each kick.
 */
export class Histogram {
  /** Upper ends, ascending; what is beyond the last is counted, too. */
  readonly boundsSeconds: readonly number[];
  /** Null until the first time: a VM whose balloon QEMU serves never has one. */
  #counts: Float64Array | null = null;
  sumSeconds = 0;

  constructor(boundsSeconds: readonly number[]) {
    this.boundsSeconds = boundsSeconds;
  }

  observe(seconds: number): void {
    const bounds = this.boundsSeconds;
    let at = 0;
    while (at < bounds.length && seconds > (bounds[at] ?? 0)) at++;
    this.#count(at, 1);
    this.sumSeconds += seconds;
  }

  /** Counts what another one with the same bounds did as well. */
  add(other: Histogram): void {
    other.#counts?.forEach((count, at) => this.#count(at, count));
    this.sumSeconds += other.sumSeconds;
  }

  /** For each bound, and then for all: how many were no longer. */
  cumulative(): number[] {
    let sum = 0;
    return Array.from(this.#counts ?? this.#zeros(), (count) => (sum += count));
  }

  #count(at: number, more: number): void {
    this.#counts ??= this.#zeros();
    this.#counts[at] = (this.#counts[at] ?? 0) + more;
  }

  #zeros(): Float64Array {
    return new Float64Array(this.boundsSeconds.length + 1);
  }
}

const US = 1e-6;
const MS = 1e-3;

/** From a few microseconds, which an inflate buffer takes, to what a guest would notice. */
export const KICK_BOUNDS: readonly number[] = [
  10 * US,
  25 * US,
  50 * US,
  100 * US,
  250 * US,
  500 * US,
  1 * MS,
  2.5 * MS,
  10 * MS,
  50 * MS,
  250 * MS,
  1,
];

/** A batch is meant to take some milliseconds. */
export const DISCARD_BOUNDS: readonly number[] = [
  100 * US,
  500 * US,
  1 * MS,
  2.5 * MS,
  5 * MS,
  10 * MS,
  25 * MS,
  50 * MS,
  100 * MS,
  250 * MS,
  1,
];
