import { monotonicNow, msSince, type Monotonic } from '../os/clock.js';

/** A balloon that gets nearer to its target by less does not get nearer: its driver tries again and again. */
const STEP_BYTES = 2 ** 20;

/** A balloon that is at its target for so long is at rest there: it moves no more for a target from before. */
const REST_MS = 2000;

/** How near a balloon is to its target, and whether it gets nearer. Sizes are in bytes. */
export class Progress {
  #targetBytes = 0;
  #actualBytes: number | null = 0;
  #movedAt = monotonicNow();
  /** The distance when it last got nearer. */
  #missingBytes = 0;
  #reached = true;
  /** Since when the balloon is at its target; null: it is not. */
  #thereSince: Monotonic | null = null;
  /** It was at rest at its target, and moved away. */
  #isAway = false;
  #awaySince: Monotonic | null = null;
  #tookBackBytes = 0;
  #overshotBytes = 0;
  /** Bytes that had gone in or out of the balloon when it began. */
  #passedBytes = 0;

  /**
   * A target holds from now on, or is told again. `actualBytes`: null where it is not known. `passedBytes`: those that went in
   * or out of the balloon so far.
   */
  begin(targetBytes: number, actualBytes: number | null, passedBytes: number): void {
    this.#targetBytes = targetBytes;
    this.#actualBytes = actualBytes;
    this.#missingBytes = actualBytes === null ? Infinity : Math.abs(targetBytes - actualBytes);
    this.#movedAt = monotonicNow();
    this.#reached = actualBytes === targetBytes;
    this.#thereSince = this.#reached ? monotonicNow() : null;
    this.#isAway = false;
    this.#awaySince = null;
    this.#tookBackBytes = 0;
    this.#overshotBytes = 0;
    this.#passedBytes = passedBytes;
  }

  /** The balloon has another size. Returns whether it is at its target now, and was not before. */
  move(actualBytes: number): boolean {
    const before = this.#actualBytes;
    this.#actualBytes = actualBytes;
    const missing = Math.abs(this.#targetBytes - actualBytes);
    if (missing === 0) {
      this.#movedAt = monotonicNow();
      const isNew = !this.#reached;
      this.#reached = true;
      this.#missingBytes = 0;
      this.#tookBackBytes = 0;
      this.#overshotBytes = 0;
      this.#thereSince ??= monotonicNow();
      this.#isAway = false;
      this.#awaySince = null;
      return isNew;
    }
    this.#leave(missing);
    if (missing <= this.#missingBytes - STEP_BYTES) {
      this.#isAway = false;
      this.#awaySince = null;
      this.#missingBytes = missing;
      this.#movedAt = monotonicNow();
    }
    if (before === null) return false;
    if (actualBytes < before && actualBytes < this.#targetBytes) this.#tookBackBytes += before - actualBytes;
    else if (actualBytes > before && actualBytes > this.#targetBytes)
      this.#overshotBytes += actualBytes - before;
    else return false;
    this.#missingBytes = Math.max(this.#missingBytes, missing);
    return false;
  }

  /** The guest could not move its balloon until now, or the daemon could not see it. */
  goOn(): void {
    this.#movedAt = monotonicNow();
  }

  /** Milliseconds since the balloon, which was at rest at its target, is away from it and gets no nearer; 0: it is not. */
  get awayMs(): number {
    return this.#awaySince === null ? 0 : msSince(this.#awaySince);
  }

  /** Milliseconds since the balloon got nearer to its target. */
  get stillMs(): number {
    return msSince(this.#movedAt);
  }

  /** Memory that the guest took out of the balloon by itself since the target was told. */
  get tookBackBytes(): number {
    return this.#tookBackBytes;
  }

  /** Memory that went into the balloon beyond its target since the target was told. */
  get overshotBytes(): number {
    return this.#overshotBytes;
  }

  /** Whether the driver has given or taken back pages since the target was told. */
  answered(passedBytes: number): boolean {
    return passedBytes !== this.#passedBytes;
  }

  #leave(missingBytes: number): void {
    this.#isAway ||= this.#thereSince !== null && msSince(this.#thereSince) >= REST_MS;
    this.#thereSince = null;
    // A driver that was in the midst of a step ends it.
    if (this.#isAway && missingBytes > STEP_BYTES) this.#awaySince ??= monotonicNow();
  }
}
