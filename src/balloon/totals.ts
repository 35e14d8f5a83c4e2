/** Places of the totals of a page cache balloon that shares its device, whose discards are among the device's. */
export const SHARED_TOTALS = { discarded: null, seconds: null, inflated: 5, deflated: 6, reported: null };
const OWN_TOTALS = { discarded: 0, seconds: 1, inflated: 2, deflated: 3, reported: 4 };

/** Totals since the VM connected, in bytes, kept in the VM's state file. */
export class BalloonTotals {
  readonly #stored: { readonly totals: Float64Array };
  readonly #places: Readonly<Record<keyof typeof OWN_TOTALS, number | null>>;

  constructor(stored: { readonly totals: Float64Array }, places: typeof SHARED_TOTALS | null = null) {
    this.#stored = stored;
    this.#places = places ?? OWN_TOTALS;
  }

  get discarded(): number {
    return this.#get('discarded');
  }

  /** Not bytes: what the system calls took. */
  get discardSeconds(): number {
    return this.#get('seconds');
  }

  get inflated(): number {
    return this.#get('inflated');
  }

  get deflated(): number {
    return this.#get('deflated');
  }

  get reported(): number {
    return this.#get('reported');
  }

  count(kind: keyof typeof OWN_TOTALS, more: number): void {
    const place = this.#places[kind];
    if (place !== null) this.#stored.totals[place] = this.#get(kind) + more;
  }

  #get(kind: keyof typeof OWN_TOTALS): number {
    const place = this.#places[kind];
    return place === null ? 0 : (this.#stored.totals[place] ?? 0);
  }
}
