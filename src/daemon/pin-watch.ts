/** How often each VM is looked at. */
const PERIOD_MS = 4000;
/** VMs looked at in one go: a glance takes some microseconds, to be woken for it takes more. */
const AT_ONCE = 16;
/** Between the parts of a look that takes long, of a millisecond each. */
const PART_PAUSE_MS = 9;

/** What was done: nothing had changed, some of a look that is to be gone on with, or all of it. */
export type Look = 'glance' | 'part' | 'whole';

interface Watched {
  recheckPinned(): Look;
}

/**
 * Looks at each VM every few seconds, a few VMs at a time, so that many VMs do not make for one long pause. While there
 * is none, nothing is done at all.
 */
export class PinWatch {
  readonly #vms: () => Watched[];
  readonly #periodMs: number;
  #timer: NodeJS.Timeout | null = null;
  #round: Watched[] = [];
  #last: Look = 'glance';

  constructor(vms: () => Watched[], periodMs = PERIOD_MS) {
    this.#vms = vms;
    this.#periodMs = periodMs;
  }

  /** To be called when there may be a first VM. */
  wake(): void {
    const count = this.#vms().length;
    if (count === 0) return;
    const pause = this.#round.length > 0 ? 1 / AT_ONCE : 1;
    const pauseMs = this.#last === 'part' ? PART_PAUSE_MS : this.#periodMs * Math.min(pause, AT_ONCE / count);
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#look();
      this.wake();
    }, pauseMs).unref();
  }

  #look(): void {
    if (this.#round.length === 0) this.#round = this.#vms();
    for (let left = AT_ONCE; left > 0; left--) {
      const vm = this.#round.pop();
      this.#last = vm?.recheckPinned() ?? 'glance';
      if (vm !== undefined && this.#last === 'part') this.#round.push(vm);
      if (vm === undefined || this.#last !== 'glance') return;
    }
  }
}
