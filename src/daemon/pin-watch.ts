/** How often each VM is looked at. */
const PERIOD_MS = 4000;

interface Watched {
  recheckPinned(): void;
}

/**
 * Looks at each VM every few seconds, one VM at a time, so that many VMs do not make for one long pause. While there is
 * none, nothing is done at all.
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
    const { length: count } = this.#vms();
    if (count === 0) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#next();
      this.wake();
    }, this.#periodMs / count).unref();
  }

  #next(): void {
    if (this.#round.length === 0) this.#round = this.#vms();
    const vm = this.#round.pop();
    vm?.recheckPinned();
  }
}
