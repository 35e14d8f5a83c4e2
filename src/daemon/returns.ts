/** VMs that connect again and again: a VMM that cannot hold its connection, or does not want to. */
import { monotonicNow, msSince, type Monotonic } from '../os/clock.js';

const WINDOW_MS = 60_000;
/** A guest may reboot, and a VMM may be restarted, a few times a minute. */
const MANY = 10;
/** VMs may call themselves by any number of names. */
const NAMES_MAX = 1000;

/** Counts how often VMs of a name came. */
export class Returns {
  readonly #counts = new Map<string, { readonly since: Monotonic; count: number }>();

  /**
   * Notes that a VM of this name came. Returns how many seconds it took to come `MANY` times, once in each minute in which it
   * comes so often; null otherwise.
   */
  came(name: string): { times: number; seconds: number } | null {
    const known = this.#counts.get(name);
    if (known === undefined || msSince(known.since) > WINDOW_MS) {
      this.#counts.delete(name);
      this.#counts.set(name, { since: monotonicNow(), count: 1 });
      this.#forgetOld();
      return null;
    }
    if (++known.count !== MANY) return null;
    return { times: MANY, seconds: Math.ceil(msSince(known.since) / 1000) };
  }

  /** Names that are noted, the oldest first. */
  #forgetOld(): void {
    for (const [name, { since }] of this.#counts) {
      if (this.#counts.size <= NAMES_MAX && msSince(since) <= WINDOW_MS) return;
      this.#counts.delete(name);
    }
  }
}
