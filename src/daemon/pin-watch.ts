/** How often each VM is looked at. */
const PERIOD_MS = 4000;
/** VMs looked at in one go: a glance takes some microseconds, to be woken for it takes more. */
const AT_ONCE = 16;

interface Watched {
  /** Returns whether that took more than a glance. */
  recheckPinned(): boolean;
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

  constructor(vms: () => Watched[], periodMs = PERIOD_MS) {
    this.#vms = vms;
    this.#periodMs = periodMs;
  }

  /** To be called when there may be a first VM. */
  wake(): void {
    const count = this.#vms().length;
    if (count === 0) return;
    const pause = this.#round.length > 0 ? 1 / AT_ONCE : 1;
    this.#timer ??= setTimeout(
      () => {
        this.#timer = null;
        this.#look();
        this.wake();
      },
      this.#periodMs * Math.min(pause, AT_ONCE / count),
    ).unref();
  }

  #look(): void {
    if (this.#round.length === 0) this.#round = this.#vms();
    for (let left = AT_ONCE; left > 0; left--) {
      const vm = this.#round.pop();
      if (vm === undefined || vm.recheckPinned()) return;
    }
  }
}
