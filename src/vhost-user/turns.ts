/**
 * Who works when on the one event loop. VMs that took no more than a trifle of late work at once. All others together
 * have two fifths of the time: when that is used up they wait for a turn, and the one that took least goes first. So those
 * that do all they can to keep the daemon busy share what is theirs, and neither the loop nor the machine is kept from
 * the rest.
 *
 * What a VM took is milliseconds of the event loop, which fade away: after T ms at a steady rate it is that rate, in
 * milliseconds a second, as near as 1 - exp(-T / 1000).
 */
const FADE_MS = 1000;
/** Who took no more never waits for a turn. */
const TRIFLE_MS = 10;
/** What those who took more have together. It is enough to inflate gigabytes a second. */
const MOST_MS = 400;
/**
 * What a message counts beside the work that it makes, which is less: a frontend has few to send, three for a MiB
 * inflated being the most, and who sends more wakes the daemon, and keeps the machine busy, for nothing.
 */
export const MESSAGE_MS = 0.05;
/** What is remembered of VMs that are gone. */
const FORGOTTEN_MS = 0.1;
/** How long they all rest before it is looked at again. */
const REST_MS = 2;
/** Turns given before new events are looked at. */
const SLICE_MS = 1;
/** Who waits for turns that long is told of; who did not wait that long is throttled no more. */
const THROTTLED_MS = 1000;

type Work = () => void;

/** What fades at the rate of FADE_MS. */
class Fading {
  #value = 0;
  #at = 0;

  add(ms: number, now: number): void {
    this.#value = this.value(now) + ms;
    this.#at = now;
  }

  value(now: number): number {
    return this.#value * Math.exp((this.#at - now) / FADE_MS);
  }
}

export class Turns {
  readonly #clock: () => number;
  readonly #later: (work: Work, ms: number) => void;
  /** What those took who took more than a trifle. */
  readonly #heavy = new Fading();
  readonly #waiting = new Set<Seat>();
  /** The time that VMs took that are gone, by their process: one that connects anew is no better for it. */
  readonly #departed = new Map<number, Fading>();
  #due = false;
  #resting = false;

  /**
   * `later` calls back once, after so many milliseconds at least, when events that came meanwhile were looked at; the
   * clock is in milliseconds.
   */
  constructor(
    clock: () => number = () => performance.now(),
    later: (work: Work, ms: number) => void = (work, ms) => {
      if (ms === 0) setImmediate(work);
      else setTimeout(work, ms);
    },
  ) {
    this.#clock = clock;
    this.#later = later;
  }

  /**
   * A place for one more VM, of the process `pid`. `throttled` is told when it waits a lot, once until it does not any
   * more.
   */
  seat(throttled: () => void = () => undefined, pid = 0): Seat {
    const taken = this.#departed.get(pid);
    this.#departed.delete(pid);
    return new Seat(this, throttled, pid, taken);
  }

  now(): number {
    return this.#clock();
  }

  /** Whether one that took `taken` may work without waiting for its turn. */
  free(taken: number): boolean {
    return taken <= TRIFLE_MS || (this.#waiting.size === 0 && this.#heavy.value(this.#clock()) <= MOST_MS);
  }

  /** So much was taken by one that has now taken `taken` of late. */
  took(ms: number, taken: number, now: number): void {
    if (taken > TRIFLE_MS) this.#heavy.add(ms, now);
  }

  waits(seat: Seat): void {
    this.#waiting.add(seat);
    if (this.#due) return;
    this.#due = true;
    this.#later(() => {
      this.#due = false;
      this.#give();
    }, 0);
  }

  leaves(seat: Seat, pid: number, taken: Fading): void {
    this.#waiting.delete(seat);
    const now = this.#clock();
    for (const [other, value] of this.#departed)
      if (value.value(now) <= FORGOTTEN_MS) this.#departed.delete(other);
    const before = this.#departed.get(pid);
    if (before !== undefined) taken.add(before.value(now), now);
    if (pid !== 0) this.#departed.set(pid, taken);
  }

  #give(): void {
    const begun = this.#clock();
    do {
      const seat = this.#first();
      if (seat === null) return;
      if (seat.taken() > TRIFLE_MS && this.#heavy.value(this.#clock()) > MOST_MS) {
        this.#rest();
        return;
      }
      if (!seat.turn()) this.#waiting.delete(seat);
    } while (this.#clock() - begun < SLICE_MS);
    const [next] = this.#waiting;
    if (next !== undefined) this.waits(next);
  }

  /** Those who wait had their part. */
  #rest(): void {
    if (this.#resting) return;
    this.#resting = true;
    this.#later(() => {
      this.#resting = false;
      this.#give();
    }, REST_MS);
  }

  #first(): Seat | null {
    const now = this.#clock();
    let first: Seat | null = null;
    for (const seat of this.#waiting) {
      if (first === null || seat.taken(now) < first.taken(now)) first = seat;
    }
    return first;
  }
}

/** All VMs of a process share its event loop. */
export const TURNS = new Turns();

/** One VM's place among those that work on the event loop. */
export class Seat {
  readonly #turns: Turns;
  readonly #throttled: () => void;
  readonly #pid: number;
  readonly #taken: Fading;
  readonly #works = new Set<Work>();
  #working = false;
  #waitsSince: number | null = null;
  #waitedAt = -Infinity;
  #told = false;

  constructor(turns: Turns, throttled: () => void, pid: number, taken = new Fading()) {
    this.#turns = turns;
    this.#throttled = throttled;
    this.#pid = pid;
    this.#taken = taken;
  }

  /** What it took of late, in milliseconds. */
  taken(now = this.#turns.now()): number {
    return this.#taken.value(now);
  }

  /** It has been waiting for turns for a while, and still is. */
  get throttled(): boolean {
    return this.#told && this.#turns.now() - this.#waitedAt < THROTTLED_MS;
  }

  /** Does `work` now, or when its turn comes; however often it is asked for until then, once. */
  run(work: Work): void {
    if (this.may(work)) this.measure(work);
  }

  /** True: it may work now. Else `again` is called once when its turn has come. */
  may(again: Work): boolean {
    if (this.#working) return true;
    const now = this.#turns.now();
    if (this.#works.size === 0 && this.#turns.free(this.taken(now))) return true;
    this.#works.add(again);
    this.#turns.waits(this);
    this.#noteWait(now);
    return false;
  }

  /** Does `work` now and counts what it takes. */
  measure(work: Work): void {
    if (this.#working) {
      work();
      return;
    }
    const begun = this.#turns.now();
    this.#working = true;
    try {
      work();
    } finally {
      this.#working = false;
      this.charge(this.#turns.now() - begun);
    }
  }

  /** Counts milliseconds that were not measured. */
  charge(ms: number): void {
    const now = this.#turns.now();
    this.#taken.add(ms, now);
    this.#turns.took(ms, this.taken(now), now);
  }

  /** For Turns: does one thing of those that wait. False when there is none left. */
  turn(): boolean {
    const [work] = this.#works;
    if (work === undefined) return false;
    this.#works.delete(work);
    this.measure(work);
    return this.#works.size > 0;
  }

  /** Nothing that waits is done any more. */
  leave(): void {
    this.#works.clear();
    this.#turns.leaves(this, this.#pid, this.#taken);
  }

  #noteWait(now: number): void {
    if (now - this.#waitedAt >= THROTTLED_MS) {
      this.#waitsSince = null;
      this.#told = false;
    }
    this.#waitedAt = now;
    this.#waitsSince ??= now;
    if (this.#told || now - this.#waitsSince < THROTTLED_MS) return;
    this.#told = true;
    this.#throttled();
  }
}
