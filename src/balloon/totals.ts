/** Totals since the VM connected, in bytes, kept in the VM's state file. */
export class BalloonTotals {
  readonly #stored: { readonly totals: Float64Array };

  constructor(stored: { readonly totals: Float64Array }) {
    this.#stored = stored;
  }

  get #values(): Float64Array {
    return this.#stored.totals;
  }

  get discarded(): number {
    return this.#values[0] ?? 0;
  }

  /** Not bytes: what the system calls took. */
  get discardSeconds(): number {
    return this.#values[1] ?? 0;
  }

  get inflated(): number {
    return this.#values[2] ?? 0;
  }

  get deflated(): number {
    return this.#values[3] ?? 0;
  }

  get reported(): number {
    return this.#values[4] ?? 0;
  }

  count(kind: 'inflated' | 'deflated' | 'reported', bytes: number): void {
    this.#values[{ inflated: 2, deflated: 3, reported: 4 }[kind]] = this[kind] + bytes;
  }

  countDiscard(bytes: number, seconds: number): void {
    this.#values[0] = this.discarded + bytes;
    this.#values[1] = this.discardSeconds + seconds;
  }
}
