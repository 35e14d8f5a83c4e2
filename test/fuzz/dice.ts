/** Numbers that follow from a seed (Mulberry32), so that whatever was done with them can be done again. */
export class Dice {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed >>> 0;
    this.#state = this.seed;
  }

  /** Below 2^32. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let value = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return (value ^ (value >>> 14)) >>> 0;
  }

  below(end: number): number {
    return end > 0 ? this.word() % end : 0;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(choices: readonly [T, ...T[]]): T {
    return choices[this.below(choices.length)] ?? choices[0];
  }

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.word());
  }

  /** Numbers at which things go wrong, and others; `base` is where something is. */
  u64(base = 0n): bigint {
    const near = BigInt(this.below(5) - 2);
    const value = this.pick([
      0n,
      1n << BigInt(this.below(64)),
      1n << 64n,
      base,
      base + BigInt(this.below(2 ** 23)),
      BigInt(this.below(2 ** 23)),
      BigInt(this.word()),
    ]);
    return BigInt.asUintN(64, value + near);
  }

  u32(): number {
    return Number(BigInt.asUintN(32, this.u64()));
  }
}
