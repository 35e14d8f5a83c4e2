/**
 * The law of `size = "working-set"`: the traditional balloon of one VM follows the working set of its guest, by the guest's
 * own statistics. step() looks at one reading and says which target is next, and why. It asks no clock and does no I/O:
 * - Memory that is free beyond some headroom is taken at once.
 * - Page cache is taken in probes: a small step, then a look at the memory that the guest reclaimed. Pages that were of no
 *   use are reclaimed once, as many as were asked for; pages in use are read again, and displace others. A step that hurts
 *   so is given back with some more, and the cache is left alone for a while, longer each time.
 * - A guest that goes on reclaiming gets more, twice as much each time. When the memory fits, the probes begin again. When
 *   the guest has all memory and goes on, it reads what it never reads again: that stream is known by its rate for a while.
 * - A guest with little available, with stalls, or that takes pages out of the balloon by itself gets memory at once.
 * A target stays between the limits, whatever the guest says. working-set-reading.ts says how far a guest is believed.
 */
import {
  facts,
  FREE_KEPT,
  PAGE_BYTES,
  wholePages,
  type Kept,
  type SizeFacts,
  type SizeLimits,
  type SizeReading,
  type Signal,
} from './working-set-reading.js';

export type { SizeLimits, SizeReading, Signal } from './working-set-reading.js';

/** Why a guest gets memory: little is available, it took pages by itself, it waited for memory, or it goes on reclaiming. */
export type Need = 'short' | 'took' | 'stalled' | 'reads';

/** The reason for a target, with its figures in bytes. */
export type SizeWhy =
  /** The target is what it was: nothing new was said, or the guest is on its way to the target. */
  | { readonly kind: 'waits' }
  | { readonly kind: 'settled' }
  /** The guest sends no statistics that a size could follow from. */
  | { readonly kind: 'blind' }
  | { readonly kind: 'took-free'; readonly bytes: number }
  | { readonly kind: 'probes'; readonly bytes: number }
  | { readonly kind: 'hurt'; readonly bytes: number; readonly broughtBytes: number }
  | { readonly kind: 'gave'; readonly bytes: number; readonly need: Need }
  /** All that may be given was given, and the guest goes on: a stream of so many bytes a second. */
  | { readonly kind: 'stream'; readonly bytesPerSecond: number }
  | { readonly kind: 'fits' }
  /** The statistics stopped in a probe: the step is given back. */
  | { readonly kind: 'unanswered'; readonly bytes: number }
  /** The guest gives up no more: the target is what it gave. */
  | { readonly kind: 'refused'; readonly bytes: number }
  /** A limit moved the target. */
  | { readonly kind: 'limit' };

/** The memory of the law from one step to the next. Moments are seconds of the caller's clock. */
export interface SizeState extends Kept {
  readonly phase: 'rest' | 'probe' | 'grow';
  /** Of the last step; and the moment at which the phase began. */
  readonly nowSeconds: number;
  readonly phaseSeconds: number;
  /** Of the last statistics: their moment, and what they counted by which signal. */
  readonly statsSeconds: number;
  readonly signal: Signal;
  readonly counted: number;
  readonly stalls: number;
  readonly actualBytes: number;
  /** A mean of the bytes that the guest reclaims in a second, beyond those that the balloon took. */
  readonly rate: number;
  /** The highest of them since the phase or the last gift began. */
  readonly peakRate: number;
  /** The target of the last step; whether the guest reached it. */
  readonly targetBytes: number;
  readonly reached: boolean;
  /** Since when the guest has come no nearer to its target. */
  readonly stuckSeconds: number;
  /** The step that the probe took, what was counted before it, and how many probes in a row hurt nothing. */
  readonly stepBytes: number;
  readonly countedBefore: number;
  readonly row: number;
  /** How often memory was given in a row. */
  readonly gives: number;
  readonly gaveSeconds: number;
  /** Since when so much stays free while the guest grows; NaN: not enough does. */
  readonly roomySeconds: number;
  readonly roomyBytes: number;
  /** Until then the page cache is left alone, after a step that hurt at this target; and for how long the next time. */
  readonly leaveUntil: number;
  readonly leaveSeconds: number;
  readonly hurtAtBytes: number;
  /** A stream of that rate is known until then, and was found then; the next time it is known for so long. */
  readonly streamRate: number;
  readonly streamUntil: number;
  readonly streamSeconds: number;
  readonly streamFound: number;
  /** The last probe that ended: when, its step and the bytes that the guest reclaimed for it; NaN: none did. */
  readonly probedSeconds: number;
  readonly probedBytes: number;
  readonly broughtBytes: number;
}

export interface Sized {
  readonly state: SizeState;
  readonly targetBytes: number;
  readonly why: SizeWhy;
  /** Seconds until the guest should be asked for statistics again. */
  readonly againSeconds: number;
}

const MIB = 2 ** 20;
/** Sizes below are for guests of up to 8 GiB; larger ones have larger watermarks, and are moved by larger steps. */
const SHORT = 16 * MIB;
const LEAST_MOVE = 4 * MIB;
const MOST_MOVE = 64 * MIB;
const FREE_SHARE = 0.6;
const PROBE_SHARE = 0.04;
const MOST_FIRST_PROBE = 12 * MIB;
const PROBE_SECONDS = 1.5;
/** A step hurts when so much more is reclaimed. */
const HURT = 4 * MIB;
const SLACK = 16 * MIB;
const LEAVE_SECONDS = { first: 10, most: 60 } as const;
/** Reclaim of so much a second is more than a guest at rest does. */
const HOT = 6 * MIB;
const FIRST_GIFT = 32 * MIB;
const MOST_GIFT = 256 * MIB;
/** Gifts within that time are in a row. */
const ROW_SECONDS = 3;
/** It fits when so much stays free for some seconds, and when less does for longer. */
const ROOMY = 40 * MIB;
const ROOMY_SECONDS = { roomy: 3, less: 10 } as const;
const STREAM_SECONDS = { first: 90, most: 720 } as const;
/** A stream is itself as far as its rate is no more than a quarter higher. */
const STREAM_MARGIN = 1.25;
/** A stream is known by its highest rate for a minute; then the rate falls with what is reclaimed. */
const STREAM_HELD_SECONDS = 60;
const STREAM_FALL_SECONDS = 20;
const RATE_SECONDS = 4;
/** A guest that reclaimed so many units since the statistics before keeps memory free. */
const KEEPING = 2;
/** A guest that gets no nearer to its target for so long gives up no more. */
const STUCK_SECONDS = 5;
/** Statistics that were asked for and did not come for so long stopped. */
const UNANSWERED_SECONDS = 5;
const MOVING_AGAIN = 0.5;
const REST_AGAIN = 30;
const REST_SHARE = 0.25;

/** The state of a VM that the law has not looked at yet. */
export const UNSIZED: SizeState = {
  phase: 'rest',
  nowSeconds: -Infinity,
  phaseSeconds: -Infinity,
  statsSeconds: NaN,
  signal: 'none',
  counted: NaN,
  stalls: NaN,
  actualBytes: 0,
  keptBytes: 0,
  guessedBytes: 0,
  rate: 0,
  peakRate: 0,
  targetBytes: NaN,
  reached: false,
  stuckSeconds: NaN,
  stepBytes: 0,
  countedBefore: 0,
  row: 0,
  gives: 0,
  gaveSeconds: -Infinity,
  roomySeconds: NaN,
  roomyBytes: 0,
  leaveUntil: -Infinity,
  leaveSeconds: LEAVE_SECONDS.first,
  hurtAtBytes: 0,
  streamRate: 0,
  streamUntil: -Infinity,
  streamSeconds: STREAM_SECONDS.first,
  streamFound: -Infinity,
  probedSeconds: NaN,
  probedBytes: NaN,
  broughtBytes: NaN,
};

/** One look: the target that the guest gets next. */
export function step(before: SizeState, reading: SizeReading, limits: SizeLimits, nowSeconds: number): Sized {
  const seen = facts(reading, limits, before);
  const { next, toBytes, why } = decide(before, seen, nowSeconds);
  const targetBytes = held(toBytes, seen);
  const kept = targetBytes === seen.target;
  // A guest that is given memory takes as much out of the balloon; any more it takes by itself.
  const reached = kept ? next.reached : targetBytes < seen.target && targetBytes <= seen.actual;
  return {
    state: { ...next, nowSeconds, targetBytes, reached },
    targetBytes,
    why,
    againSeconds: again(next, seen, nowSeconds, !kept),
  };
}

interface Decision {
  readonly next: SizeState;
  readonly toBytes: number;
  readonly why: SizeWhy;
}

const WAITS = { kind: 'waits' } as const;

function decide(before: SizeState, seen: SizeFacts, now: number): Decision {
  const { target } = seen;
  // A clock that steps back makes all moments worthless: the law begins anew.
  if (now < before.nowSeconds) return undo(UNSIZED, target, before.phase === 'probe' ? before.stepBytes : 0);
  const state = look(before, seen, now);
  if (held(target, seen) !== target)
    return { next: begin(state, 'rest', now), toBytes: target, why: { kind: 'limit' } };
  // Memory that the guest took out of the balloon by itself: the driver takes no more than that until the target falls.
  if (state.reached && seen.actual < target - seen.unit && giftRoom(seen) >= PAGE_BYTES)
    return give(state, seen, now, 'took');
  if (!seen.newerThan(before.statsSeconds)) return silent(state, seen, now);
  if (Number.isNaN(seen.free)) {
    const next = state.phase === 'rest' ? state : begin(state, 'rest', now);
    const stepBytes = state.phase === 'probe' ? state.stepBytes : 0;
    return { next, toBytes: target - stepBytes, why: { kind: 'blind' } };
  }
  const need = needOf(before, seen);
  if (need !== null) return give(state, seen, now, need);
  if (state.phase === 'probe') return judge(state, seen, now);
  if (seen.coming > seen.unit) return { next: state, toBytes: target, why: WAITS };
  if (seen.owed > seen.unit) return stuck(state, seen, now);
  return growOrSqueeze(state, seen, now);
}

/** Notes what the statistics counted since those before them, and whether the target was reached. */
function look(state: SizeState, seen: SizeFacts, now: number): SizeState {
  const { statsSeconds, signal, counted, stalls, actual, target, owed, unit } = seen;
  const reached = target === state.targetBytes && (state.reached || Math.abs(owed) <= unit);
  const moves = actual > state.actualBytes + unit || owed <= unit || Number.isNaN(state.stuckSeconds);
  const phaseSeconds = state.phaseSeconds === -Infinity ? now : state.phaseSeconds;
  const followed = { ...state, reached, phaseSeconds, stuckSeconds: moves ? now : state.stuckSeconds };
  if (!seen.newerThan(state.statsSeconds)) return followed;
  const seconds = statsSeconds - state.statsSeconds;
  const comparable = signal === state.signal && counted >= state.counted && seconds > 0;
  // Memory that the guest was just given is free for another reason.
  const keeping = comparable && counted - state.counted >= KEEPING * unit;
  const keptBytes = keeping && now - state.gaveSeconds > ROW_SECONDS ? keeps(state, seen) : state.keptBytes;
  const { guessedBytes } = seen;
  const counts = { statsSeconds, signal, counted, stalls, actualBytes: actual };
  const known = { ...followed, ...counts, keptBytes, guessedBytes };
  // Memory that was given and is free yet: nothing is reclaimed, whatever the guest reads.
  if (!comparable || (state.phase === 'grow' && seen.free > FREE_KEPT * seen.scale)) return known;
  const asked = signal === 'reclaim' ? Math.max(0, actual - state.actualBytes) : 0;
  const instant = Math.max(0, counted - state.counted - asked) / seconds;
  const mean = state.rate + (instant - state.rate) * (1 - Math.exp(-seconds / RATE_SECONDS));
  const rates = { ...known, rate: mean, peakRate: Math.max(state.peakRate, instant) };
  if (now - state.streamFound < STREAM_HELD_SECONDS) return rates;
  const fallen = state.streamRate * Math.exp(-seconds / STREAM_FALL_SECONDS);
  return { ...rates, streamRate: Math.min(state.streamRate, Math.max(mean, fallen)) };
}

/** The guest reclaimed: as much as is free now is about what its kernel keeps so. */
function keeps({ keptBytes }: SizeState, { toldFree }: SizeFacts): number {
  if (!(toldFree <= keptBytes)) return toldFree || keptBytes;
  return keptBytes + (toldFree - keptBytes) / 2;
}

/** No new statistics: a probe whose answer does not come is undone. */
function silent(state: SizeState, seen: SizeFacts, now: number): Decision {
  const late = now - state.phaseSeconds >= PROBE_SECONDS + UNANSWERED_SECONDS;
  if (state.phase === 'probe' && late)
    return undo(leave(begin(state, 'rest', now), now), seen.target, state.stepBytes);
  const why = Number.isNaN(seen.statsSeconds) ? ({ kind: 'blind' } as const) : WAITS;
  return { next: state, toBytes: seen.target, why };
}

/** Gives back the step of a probe that will not be answered. */
function undo(next: SizeState, target: number, bytes: number): Decision {
  const why = bytes > 0 ? ({ kind: 'unanswered', bytes } as const) : WAITS;
  return { next, toBytes: target - bytes, why };
}

/** Whether the guest needs memory at once, and can have some. */
function needOf(before: SizeState, seen: SizeFacts): Need | null {
  const { scale, coming, stalls } = seen;
  const spare = seen.spare + coming;
  if (giftRoom(seen) < PAGE_BYTES) return null;
  if (spare < -SHORT * scale) return 'short';
  return stalls > before.stalls && spare < 0 ? 'stalled' : null;
}

function giftRoom({ target, actual, least, room }: SizeFacts): number {
  return wholePages(Math.min(room, Math.min(target, actual) - least));
}

/** Gives memory, twice as much each time in a row. */
function give(state: SizeState, seen: SizeFacts, now: number, need: Need): Decision {
  const inRow = state.phase === 'grow' || now - state.gaveSeconds <= ROW_SECONDS;
  const gives = inRow ? state.gives : 0;
  const gift = Math.min(MOST_GIFT, FIRST_GIFT * 2 ** gives) * seen.scale;
  const lack = need === 'short' ? FIRST_GIFT * seen.scale - 2 * (seen.spare + seen.coming) : 0;
  const bytes = Math.min(wholePages(Math.max(gift, lack)), giftRoom(seen));
  const undone = state.phase === 'probe' ? leave(state, now) : state;
  const next = { ...begin(undone, 'grow', now), gives: gives + 1, gaveSeconds: now, row: 0 };
  return {
    next,
    toBytes: Math.min(seen.target, seen.actual) - bytes,
    why: { kind: 'gave', bytes, need },
  };
}

/** Looks at what the step of a probe brought. */
function judge(state: SizeState, seen: SizeFacts, now: number): Decision {
  const { target, scale, signal } = seen;
  const seconds = now - state.phaseSeconds;
  const broughtBytes = Math.max(0, state.counted - state.countedBefore) || 0;
  const asked = signal === 'reclaim' ? state.stepBytes : 0;
  const streamed = seconds * stream(state, now) * STREAM_MARGIN;
  const probed = { ...state, probedSeconds: now, probedBytes: state.stepBytes, broughtBytes };
  // A stream comes in bursts, so that only the whole of the time says something beside it.
  const known = streamed === 0 || seconds >= PROBE_SECONDS;
  if (known && broughtBytes - asked - streamed >= HURT * scale) {
    // The mean has what the probe brought, which says nothing of the time after it.
    const after = { ...begin(probed, 'rest', now), hurtAtBytes: target, rate: stream(state, now) };
    const next = { ...leave(after, now), gives: 0, gaveSeconds: now };
    const toBytes = target - state.stepBytes - SLACK * scale;
    return { next, toBytes, why: { kind: 'hurt', bytes: state.stepBytes, broughtBytes } };
  }
  if (seconds < PROBE_SECONDS) return { next: state, toBytes: target, why: WAITS };
  if (seen.owed > seen.unit) return stuck(state, seen, now);
  // Well below the size at which it hurt: the working set shrank.
  const leaveSeconds = target >= state.hurtAtBytes + SLACK * scale ? LEAVE_SECONDS.first : state.leaveSeconds;
  return growOrSqueeze({ ...begin(probed, 'rest', now), row: state.row + 1, leaveSeconds }, seen, now);
}

/** A guest that does not give up what is asked of it is asked for no more than it gave. */
function stuck(state: SizeState, seen: SizeFacts, now: number): Decision {
  if (now - state.stuckSeconds < STUCK_SECONDS) return { next: state, toBytes: seen.target, why: WAITS };
  const keptBytes = Math.max(state.keptBytes, seen.toldFree);
  const next = { ...leave(begin(state, 'rest', now), now), stuckSeconds: now, keptBytes };
  return { next, toBytes: seen.actual, why: { kind: 'refused', bytes: seen.owed } };
}

function growOrSqueeze(state: SizeState, seen: SizeFacts, now: number): Decision {
  if (state.phase === 'grow') return grow(state, seen, now);
  return isHot(state, seen, now) ? grow(begin(state, 'grow', now), seen, now) : squeeze(state, seen, now);
}

/** The guest goes on reclaiming: it gets more while it uses up what it got, until it fits or all was given. */
function grow(state: SizeState, seen: SizeFacts, now: number): Decision {
  const { target, scale, free, least } = seen;
  const same = (next: SizeState, why: SizeWhy): Decision => ({ next, toBytes: target, why });
  const fits = (): Decision => {
    const { leaveSeconds } = state;
    const next = leave({ ...begin(state, 'rest', now), rate: 0 }, now);
    return same({ ...next, leaveSeconds }, { kind: 'fits' });
  };
  if (free > FREE_KEPT * scale) {
    const stays = free >= state.roomyBytes - LEAST_MOVE * scale && !Number.isNaN(state.roomySeconds);
    if (!stays) return same({ ...state, roomySeconds: now, roomyBytes: free }, WAITS);
    const long = free >= ROOMY * scale ? ROOMY_SECONDS.roomy : ROOMY_SECONDS.less;
    return now - state.roomySeconds >= long ? fits() : same(state, WAITS);
  }
  const used = { ...state, roomySeconds: NaN };
  const waited = now - Math.max(state.phaseSeconds, state.gaveSeconds) >= ROW_SECONDS;
  if (!isHot(used, seen, now)) return waited ? fits() : same(used, WAITS);
  if (giftRoom(seen) >= PAGE_BYTES) return give(used, seen, now, 'reads');
  if (!waited) return same(used, WAITS);
  // The host has no more to give: that says nothing of the guest.
  if (target >= least + PAGE_BYTES) return fits();
  return same(knowStream(used, now), { kind: 'stream', bytesPerSecond: used.peakRate });
}

/** All was given, and the guest goes on: it reads a stream, which is known by its rate for a while. */
function knowStream(state: SizeState, now: number): SizeState {
  const again = state.streamRate > 0 && state.rate < 2 * state.streamRate;
  const streamSeconds = again ? Math.min(STREAM_SECONDS.most, 2 * state.streamSeconds) : STREAM_SECONDS.first;
  const streamRate = Math.max(state.rate, state.peakRate);
  const known = { streamRate, streamFound: now, streamSeconds, streamUntil: now + streamSeconds };
  return { ...begin(state, 'rest', now), ...known, leaveUntil: now, row: 0 };
}

/** Takes free memory at once, or begins a probe of the page cache. */
function squeeze(state: SizeState, seen: SizeFacts, now: number): Decision {
  const { target, scale, spare, caches, signal } = seen;
  const same = { next: state, toBytes: target, why: { kind: 'settled' } } as const;
  const room = seen.most - target;
  // Memory that was just given is for what comes.
  if (room < PAGE_BYTES || now - state.gaveSeconds < ROW_SECONDS) return same;
  const free = FREE_SHARE * (seen.free - FREE_KEPT * scale);
  if (free >= LEAST_MOVE * scale) {
    const bytes = wholePages(Math.min(free, MOST_MOVE * scale, room));
    return { next: begin(state, 'rest', now), toBytes: target + bytes, why: { kind: 'took-free', bytes } };
  }
  if (spare < LEAST_MOVE * scale || signal === 'none' || now < state.leaveUntil) return same;
  const first = Math.min(MOST_FIRST_PROBE * scale, Math.max(LEAST_MOVE * scale, PROBE_SHARE * caches));
  // Beside a stream of known rate, and where nothing hurt so far, steps are as large as those for free memory.
  const wished = stream(state, now) > 0 ? Infinity : first * 2 ** state.row;
  const bytes = wholePages(Math.min(room, Math.max(first, Math.min(wished, spare / 2, MOST_MOVE * scale))));
  const next = { ...begin(state, 'probe', now), stepBytes: bytes, countedBefore: state.counted };
  return { next, toBytes: target + bytes, why: { kind: 'probes', bytes } };
}

/** The rate of the stream that is known; 0: none is. */
function stream(state: SizeState, now: number): number {
  return now < state.streamUntil ? state.streamRate : 0;
}

function isHot(state: SizeState, { scale }: SizeFacts, now: number): boolean {
  return state.rate > HOT * scale + stream(state, now) * STREAM_MARGIN;
}

function begin(state: SizeState, phase: SizeState['phase'], now: number): SizeState {
  return { ...state, phase, phaseSeconds: now, roomySeconds: NaN, peakRate: 0 };
}

/** Leaves the page cache alone for a while, twice as long the next time. */
function leave(state: SizeState, now: number): SizeState {
  const leaveSeconds = Math.min(LEAVE_SECONDS.most, 2 * state.leaveSeconds);
  return { ...state, leaveUntil: now + state.leaveSeconds, leaveSeconds, row: 0 };
}

/** The target within the limits. */
function held(target: number, { least, most }: SizeFacts): number {
  return wholePages(Math.min(most, Math.max(least, target)));
}

/** Seconds until the next look: soon while something moves, later the longer nothing does. */
function again(state: SizeState, seen: SizeFacts, now: number, moved: boolean): number {
  const moving = moved || state.phase !== 'rest' || seen.coming > seen.unit || seen.owed > seen.unit;
  if (moving || now - state.gaveSeconds < ROW_SECONDS) return MOVING_AGAIN;
  const rested = (now - state.phaseSeconds) * REST_SHARE;
  const left = state.leaveUntil > now ? state.leaveUntil - now : Infinity;
  return Math.max(MOVING_AGAIN, Math.min(REST_AGAIN, rested, left));
}
