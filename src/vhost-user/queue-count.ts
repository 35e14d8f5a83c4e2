/** QEMU sends SET_VRING_CALL for every queue right after connecting; this long after the last it is over. */
const SETTLE_MS = 1000;

/** What the count goes by. */
interface Counted {
  readonly vrings: readonly { readonly hasCall: boolean }[];
  /** The VMM waits for a driver, and has acked no features. */
  readonly awaitsDriver: boolean;
}

/**
 * Finds out how many queues the VMM has for the device. QEMU names all of them before it knows the driver's features. Other
 * VMMs name the queues that the driver set up, after the features: that says nothing of those that the VMM has.
 */
export class QueueCount {
  readonly #of: Counted;
  readonly #settled: (present: number) => void;
  #timer: NodeJS.Timeout | null = null;

  constructor(of: Counted, settled: (present: number) => void) {
    this.#of = of;
    this.#settled = settled;
  }

  /** A queue may have been named. */
  look(): void {
    const { vrings, awaitsDriver } = this.#of;
    if (!awaitsDriver || !vrings.some(({ hasCall }) => hasCall)) return;
    this.close();
    this.#timer = setTimeout(() => {
      this.#settled(vrings.filter(({ hasCall }) => hasCall).length);
    }, SETTLE_MS).unref();
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
  }
}
