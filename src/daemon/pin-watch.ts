import type { Look } from '../vm/pins.js';

/** How often each VM is looked at. */
const PERIOD_MS = 4000;
/** For how long VMs are looked at in one go: to be woken costs more than a look, which takes some 20 microseconds. */
const AT_ONCE_MS = 1;
/** So many glances also where they take longer: on a host at rest, the first one finds nothing in the CPU's caches. */
const LEAST_AT_ONCE = 32;
/** Between the parts of a look that takes long, of a millisecond each. */
const PART_PAUSE_MS = 9;
/** How long it is believed that the kernel has no driver that pins memory. */
const DRIVERS_MS = 4000;

interface Watched {
  /** `mayPin`: as far as the kernel's drivers are concerned. */
  recheckPinned(mayPin: boolean): Look;
}

/**
 * Looks at each VM every few seconds, a few VMs at a time, so that many VMs do not make for one long pause. While there
 * is none, nothing is done at all.
 */
export class PinWatch {
  readonly #vms: () => Watched[];
  readonly #mayPin: () => boolean;
  readonly #periodMs: number;
  #timer: NodeJS.Timeout | null = null;
  #round: Watched[] = [];
  #count = 0;
  #drivers = { mayPin: true, seenAt: -Infinity };

  constructor(vms: () => Watched[], mayPin: () => boolean, periodMs = PERIOD_MS) {
    this.#vms = vms;
    this.#mayPin = mayPin;
    this.#periodMs = periodMs;
  }

  /** To be called when there may be a first VM. */
  wake(): void {
    if (this.#timer === null && this.#vms().length > 0) this.#wait(this.#periodMs);
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => {
      const pauseMs = this.#look();
      this.#timer = null;
      if (pauseMs !== null) this.#wait(pauseMs);
    }, ms).unref();
  }

  /** Returns when to go on: the pauses of a round make a period. Null: there is no VM. */
  #look(): number | null {
    if (this.#round.length === 0) {
      this.#round = this.#vms();
      this.#count = this.#round.length;
      if (this.#count === 0) return null;
    }
    const begun = performance.now();
    if (begun - this.#drivers.seenAt >= DRIVERS_MS) this.#drivers = { mayPin: this.#mayPin(), seenAt: begun };
    let looks = 0;
    let searched = false;
    do {
      const vm = this.#round.pop();
      if (vm === undefined) break;
      const look = vm.recheckPinned(this.#drivers.mayPin);
      if (look === 'part') {
        this.#round.push(vm);
        return PART_PAUSE_MS;
      }
      looks++;
      searched ||= look === 'whole';
    } while (performance.now() - begun < AT_ONCE_MS || (!searched && looks < LEAST_AT_ONCE));
    return (this.#periodMs * looks) / this.#count;
  }
}
