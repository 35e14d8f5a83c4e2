/**
 * Who works when on the one event loop. VMs that took no more than a trifle of late work at once. The others do so too,
 * as long as the loop has time for all of them. Else each waits for a turn, and the one that took least goes first: so the loop
 * is never idle while somebody waits, those that do all they can to keep it busy share it in equal parts, and new events
 * are looked at after each slice of turns.
 *
 * While those that take little take more than a trifle together, all others together have two fifths of the time: a daemon that
 * sleeps now and then is woken at once when one of the many needs it, and a machine that is kept busy by a few is slow for all.
 *
 * What a VM took is milliseconds of the event loop, which fade away: after T ms at a steady rate it is that rate, in
 * milliseconds a second, as near as 1 - exp(-T / 1000).
 */
const FADE_MS = 1000;
/** Who took no more never waits for a turn. */
const TRIFLE_MS = 10;
/** What those who took more have together, while others need the daemon. */
const MOST_MS = 400;
/** How long they all rest before it is looked at again. */
const REST_MS = 2;
/**
 * What a message counts beside the work that it makes, which is less: a frontend has few to send, three for a MiB
 * inflated being the most, and who sends more wakes the daemon, and keeps the machine busy, for nothing.
 */
const MESSAGE_MS = 0.05;
/** What is remembered of VMs that are gone. */
const FORGOTTEN_MS = 0.1;
/** Turns given before new events are looked at. */
const SLICE_MS = 1;
/** What is done without a turn fades at this rate, so that at most half of the time can be spent so; by one that is alone, three quarters. */
const AT_ONCE_FADE_MS = 2 * SLICE_MS;
const ALONE_MS = 1.5 * SLICE_MS;
/** A VM that waited for more than half of the last seconds, since others went first, is told of. */
const WAITED_FADE_MS = 5000;
const THROTTLED_MS = 2500;
/** A VM that waited for no more than this is throttled no longer. */
const UNTROUBLED_MS = 500;

type Work = () => void;

/** What fades away, by default at the rate of FADE_MS. */
class Fading {
  readonly #fadeMs: number;
  #value = 0;
  #at = 0;

  constructor(fadeMs = FADE_MS) {
    this.#fadeMs = fadeMs;
  }

  add(ms: number, now: number): void {
    this.#value = this.value(now) + ms;
    this.#at = now;
  }

  value(now: number): number {
    return this.#value * Math.exp((this.#at - now) / this.#fadeMs);
  }
}

export class Turns {
  readonly #clock: () => number;
  readonly #later: (work: Work, ms: number) => void;
  /** What those took who took more than a trifle. */
  readonly #heavy = new Fading();
  /** What those took who took a trifle each. */
  readonly #light = new Fading();
  /** The part of what was heavy that was done without a turn. */
  readonly #atOnce = new Fading(AT_ONCE_FADE_MS);
  readonly #waiting = new Set<Seat>();
  /** The time that VMs took that are gone, by their process: one that connects anew is no better for it. */
  readonly #departed = new Map<number, Fading>();
  #due = false;
  #giving = false;

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
    if (taken <= TRIFLE_MS) return true;
    if (this.#waiting.size > 0 || this.#rests()) return false;
    return this.#atOnce.value(this.#clock()) <= (this.alone(taken) ? ALONE_MS : SLICE_MS);
  }

  /** Whether nobody else took more than a trifle of late. */
  alone(taken: number): boolean {
    return this.#heavy.value(this.#clock()) - taken <= TRIFLE_MS;
  }

  /** So much was taken by one that has now taken `taken` of late. */
  took(ms: number, taken: number, now: number): void {
    if (taken <= TRIFLE_MS) {
      this.#light.add(ms, now);
      return;
    }
    const before = taken - ms;
    const rises = before <= TRIFLE_MS;
    // All that it took is what a VM took that wants more than a trifle.
    if (rises) this.#light.add(-Math.min(before, this.#light.value(now)), now);
    this.#heavy.add(rises ? taken : ms, now);
  }

  /** So much was done at once by one that has now taken `taken` of late. */
  didAtOnce(ms: number, taken: number, now: number): void {
    if (taken > TRIFLE_MS && !this.#giving) this.#atOnce.add(ms, now);
  }

  waits(seat: Seat): void {
    this.#waiting.add(seat);
    if (this.#due) return;
    this.#due = true;
    const give = (): void => {
      this.#due = false;
      this.#give();
    };
    this.#later(give, this.#rests() ? REST_MS : 0);
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
    this.#giving = true;
    try {
      do {
        const seat = this.#first();
        if (seat === null || (seat.taken() > TRIFLE_MS && this.#rests())) break;
        if (!seat.turn()) this.#waiting.delete(seat);
      } while (this.#clock() - begun < SLICE_MS);
    } finally {
      this.#giving = false;
    }
    const [next] = this.#waiting;
    if (next !== undefined) this.waits(next);
  }

  /** Those who took more than a trifle had their part, and others need the daemon. */
  #rests(): boolean {
    const now = this.#clock();
    return this.#light.value(now) > TRIFLE_MS && this.#heavy.value(now) > MOST_MS;
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
  /** How long it waited for turns while others went first. */
  readonly #waited = new Fading(WAITED_FADE_MS);
  #waitsSince = 0;
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

  /** It waits for turns most of the time, and has done so for seconds. */
  get throttled(): boolean {
    if (this.#told && this.#waited.value(this.#turns.now()) < UNTROUBLED_MS) this.#told = false;
    return this.#told;
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
    if (this.#works.size === 0) this.#waitsSince = now;
    this.#works.add(again);
    this.#turns.waits(this);
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
      const now = this.#turns.now();
      this.charge(now - begun);
      this.#turns.didAtOnce(now - begun, this.taken(now), now);
    }
  }

  /** Counts milliseconds that were not measured. */
  charge(ms: number): void {
    const now = this.#turns.now();
    this.#taken.add(ms, now);
    this.#turns.took(ms, this.taken(now), now);
  }

  /** A message came. */
  chargeMessage(): void {
    this.charge(MESSAGE_MS);
  }

  /** For Turns: does one thing of those that wait. False when there is none left. */
  turn(): boolean {
    const [work] = this.#works;
    if (work === undefined) return false;
    this.#works.delete(work);
    this.#noteWait();
    this.measure(work);
    this.#waitsSince = this.#turns.now();
    return this.#works.size > 0;
  }

  /** Nothing that waits is done any more. */
  leave(): void {
    this.#works.clear();
    this.#turns.leaves(this, this.#pid, this.#taken);
  }

  #noteWait(): void {
    const now = this.#turns.now();
    if (!this.#turns.alone(this.taken(now))) this.#waited.add(now - this.#waitsSince, now);
    if (this.throttled || this.#waited.value(now) < THROTTLED_MS) return;
    this.#told = true;
    this.#throttled();
  }
}
