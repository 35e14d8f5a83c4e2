/**
 * What guests want to use, step by step: kinds of workload that differ in when they want it. A synthetic fleet is a
 * mixture of them, the same for the same seed.
 */
import { Dice } from './dice.js';

const GIB = 2 ** 30;
const DAY_SECONDS = 86400;
/** How much of the way to what it wants next a guest goes in 10 s. */
const APPROACH = 0.25;

interface Kind {
  readonly name: string;
  readonly share: number;
  /** Of RAM: at night, more by day, and while it is busy. */
  readonly night: number;
  readonly day: number;
  readonly busy: number;
  /** How often it becomes busy, and for how long, in seconds. */
  readonly everySeconds: number;
  readonly forSeconds: number;
}

interface Mixture {
  readonly kinds: readonly Kind[];
  /** Each as likely as the next. */
  readonly ramBytes: readonly number[];
}

const MIXED: readonly Kind[] = [
  { name: 'web', share: 0.4, night: 0.25, day: 0.25, busy: 0.2, everySeconds: 7200, forSeconds: 600 },
  { name: 'database', share: 0.2, night: 0.55, day: 0.1, busy: 0.15, everySeconds: 14400, forSeconds: 1200 },
  { name: 'batch', share: 0.15, night: 0.15, day: 0, busy: 0.65, everySeconds: 21600, forSeconds: 5400 },
  { name: 'idle', share: 0.25, night: 0.12, day: 0.03, busy: 0.4, everySeconds: 43200, forSeconds: 900 },
];

const HELD_OUT: readonly Kind[] = [
  { name: 'builder', share: 0.3, night: 0.1, day: 0, busy: 0.8, everySeconds: 3600, forSeconds: 900 },
  { name: 'cache', share: 0.2, night: 0.7, day: 0, busy: 0.1, everySeconds: 7200, forSeconds: 1800 },
  { name: 'desktop', share: 0.3, night: 0.1, day: 0.45, busy: 0.3, everySeconds: 3600, forSeconds: 300 },
  { name: 'sleeper', share: 0.2, night: 0.08, day: 0, busy: 0.6, everySeconds: 86400, forSeconds: 3600 },
];

/** `held-out` is for figures only: nothing was tuned on it. */
const MIXTURES = {
  mixed: { kinds: MIXED, ramBytes: [2, 4, 4, 8, 8, 16].map((gib) => gib * GIB) },
  'held-out': { kinds: HELD_OUT, ramBytes: [1, 2, 2, 4, 8, 32].map((gib) => gib * GIB) },
} as const satisfies Record<string, Mixture>;
export type MixtureName = keyof typeof MIXTURES;
export const MIXTURE_NAMES = Object.keys(MIXTURES) as MixtureName[];

/** What the VMs of one host want: columns like those of the policy. */
export class Workload {
  readonly count: number;
  readonly ramBytes: Float64Array;
  /** A number from 0 to 1 by which the VM is put into a band. */
  readonly rank: Float64Array;
  readonly wantBytes: Float64Array;
  readonly #kind: Uint8Array;
  readonly #phase: Float64Array;
  readonly #busyUntil: Float64Array;
  readonly #dice: Dice;
  readonly #kinds: readonly Kind[];

  constructor(count: number, seed: number, mixture: MixtureName = 'mixed') {
    const { kinds, ramBytes } = MIXTURES[mixture];
    this.#kinds = kinds;
    const dice = new Dice(seed);
    this.#dice = dice;
    this.count = count;
    this.ramBytes = new Float64Array(count);
    this.rank = new Float64Array(count);
    this.wantBytes = new Float64Array(count);
    this.#kind = new Uint8Array(count);
    this.#phase = new Float64Array(count);
    this.#busyUntil = new Float64Array(count);
    for (let row = 0; row < count; row++) {
      this.#kind[row] = kindOf(kinds, dice.next());
      this.ramBytes[row] = ramBytes[Math.floor(dice.next() * ramBytes.length)] ?? GIB;
      this.rank[row] = dice.next();
      // Most people are awake at the same time.
      this.#phase[row] = (dice.next() - 0.5) * 0.25;
      this.wantBytes[row] = 0.2 * (this.ramBytes[row] ?? 0);
    }
  }

  step(nowSeconds: number, stepSeconds: number): void {
    const { count, ramBytes, wantBytes } = this;
    const clock = nowSeconds / DAY_SECONDS;
    const approach = 1 - (1 - APPROACH) ** (stepSeconds / 10);
    for (let row = 0; row < count; row++) {
      const kind = this.#kinds[this.#kind[row] ?? 0];
      if (kind === undefined) continue;
      if (this.#dice.next() < stepSeconds / kind.everySeconds) {
        this.#busyUntil[row] = nowSeconds + kind.forSeconds * (0.5 + this.#dice.next());
      }
      const hour = clock + (this.#phase[row] ?? 0);
      const awake = triangle(hour - Math.floor(hour));
      const busy = (this.#busyUntil[row] ?? 0) > nowSeconds ? kind.busy : 0;
      const goal = (kind.night + kind.day * awake + busy) * (ramBytes[row] ?? 0);
      const want = wantBytes[row] ?? 0;
      wantBytes[row] = want + (goal - want) * approach;
    }
  }
}

function kindOf(kinds: readonly Kind[], number: number): number {
  let sum = 0;
  for (const [index, { share }] of kinds.entries()) {
    sum += share;
    if (number < sum) return index;
  }
  return 0;
}

/** 0 at midnight, 1 at noon. */
function triangle(share: number): number {
  return 1 - Math.abs(2 * share - 1);
}
