/**
 * The law of `size = "working-set"`: the traditional balloon of one VM follows the working set of its guest, by the guest's
 * own statistics. step() looks at one reading and says which target is next, and why. It asks no clock and does no I/O:
 * - Memory that is free beyond some headroom is taken at once.
 * - Page cache is taken in probes: a small step, then a look at the memory that the guest reclaimed. Pages that were of no
 *   use are reclaimed once, as many as were asked for; pages in use are read again, and displace others. A step that hurts
 *   so is given back with some more, and the cache is left alone for a while, longer each time.
 * - A guest that goes on reclaiming gets more, twice as much each time. When the memory fits, the probes begin again some seconds later. When
 *   the guest has all memory and goes on, it reads what it never reads again: that stream is known by its rate for a while.
 * - Memory that is free in a guest at rest, and takes up memory of the host, is reported when much is free for some seconds.
 * - A guest with little available, with stalls, or that takes pages out of the balloon by itself gets memory at once.
 * A target stays between the limits, whatever the guest says. working-set-reading.ts says how far a guest is believed.
 */
import {
  facts,
  FREE_KEPT,
  PAGE_BYTES,
  wholePages,
  type SizeFacts,
  type SizeLimits,
  type SizeReading,
} from './working-set-reading.js';
import {
  AIR_SECONDS,
  begin,
  leave,
  LEAVE_SECONDS,
  UNSIZED,
  type Need,
  type Sized,
  type SizeState,
  type SizeWhy,
} from './working-set-state.js';
import {
  gainedNothing,
  isBeside,
  isKnown,
  wasKnown,
  withUse,
  knowStream,
  streamMost,
  streamPeak,
  streamRate,
  withRate,
} from './working-set-stream.js';

export { UNSIZED, type Need, type Sized, type SizeState, type SizeWhy } from './working-set-state.js';
export type { SizeLimits, SizeReading, Signal } from './working-set-reading.js';

const MIB = 2 ** 20;
/** Sizes below are for guests of up to 8 GiB; larger ones have larger watermarks, and are moved by larger steps. */
const SHORT = 16 * MIB;
const LEAST_MOVE = 4 * MIB;
const MOST_MOVE = 64 * MIB;
const FREE_SHARE = 0.6;
const PROBE_SHARE = 0.04;
const MOST_FIRST_PROBE = 12 * MIB;
const PROBE_SECONDS = 1.5;
/** After a step that hurts, the next one may hurt for so long, as long as the guest is calm for the last part of it. */
const PATIENT_SECONDS = 5;
const CALM_SECONDS = 1;
/** A stream comes in bursts: a step seems to hurt beside it for so long before it does. */
const BESIDE_SECONDS = 2 * PROBE_SECONDS;
/** A step hurts when so much more is reclaimed. */
const HURT = 4 * MIB;
const SLACK = 16 * MIB;
/** Reclaim of so much a second is more than a guest at rest does. */
const HOT = 6 * MIB;
const FIRST_GIFT = 32 * MIB;
const MOST_GIFT = 256 * MIB;
/** Gifts within that time are in a row. */
const ROW_SECONDS = 3;
/** It fits when so much stays free for some seconds, and when less does for longer. */
const ROOMY = 40 * MIB;
const ROOMY_SECONDS = { roomy: 3, less: 10 } as const;
/** Where memory that was given fits, the page cache is left alone for that part of the time after a step that hurts. */
const FITS_SHARE = 0.5;
/** A guest that reclaimed so many units since the statistics before keeps memory free. */
const KEEPING = 2;
/** A guest that gets no nearer to its target for so long gives up no more. */
const STUCK_SECONDS = 5;
/** Statistics that were asked for and did not come for so long stopped. */
const UNANSWERED_SECONDS = 5;
/** A guest is aired where so much of its free memory takes up memory of the host, by so much memory, for so long. */
const STALE = 16 * MIB;
const AIR = 160 * MIB;
const AIRED_SECONDS = 5;
const AIRED_MOST_SECONDS = 20;
/** All memory is given for so long at most to find out whether a stream is one. */
const TURNED_MOST_SECONDS = 30;
const GROWING_AGAIN = 0.25;
const MOVING_AGAIN = 0.5;
const REST_AGAIN = 30;
const REST_SHARE = 0.25;
const BESIDE_AGAIN = 2;

/** One look: the target that the guest gets next. */
export function step(before: SizeState, reading: SizeReading, limits: SizeLimits, nowSeconds: number): Sized {
  const seen = facts(reading, limits, { ...before, isBeside: isBeside(before, nowSeconds) });
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
    return { next, toBytes: target - stepBytes, why: { kind: 'blind', lacks: 'free' } };
  }
  const need = needOf(before, seen);
  if (need !== null) return give(state, seen, now, need);
  if (state.phase === 'probe') return judge(state, seen, now);
  if (state.phase === 'air') return airing(state, seen, now);
  if (seen.coming > seen.unit) return { next: state, toBytes: target, why: WAITS };
  if (seen.owed > seen.unit) return stuck(state, seen, now);
  return growOrSqueeze(state, seen, now);
}

/** Notes what the statistics counted since those before them, and whether the target was reached. */
function look(state: SizeState, seen: SizeFacts, now: number): SizeState {
  const { statsSeconds, signal, counted, stalls, swappedIn, swapped, actual, target, owed, unit } = seen;
  const reached = target === state.targetBytes && (state.reached || Math.abs(owed) <= unit);
  const moves = actual > state.actualBytes + unit || owed <= unit || Number.isNaN(state.stuckSeconds);
  const phaseSeconds = state.phaseSeconds === -Infinity ? now : state.phaseSeconds;
  const followed = { ...state, reached, phaseSeconds, stuckSeconds: moves ? now : state.stuckSeconds };
  if (!seen.newerThan(state.statsSeconds)) return followed;
  const seconds = statsSeconds - state.statsSeconds;
  const comparable = signal === state.signal && counted >= state.counted && seconds > 0;
  // Memory that the guest was just given is free for another reason, and beside a stream it is squeezed below that.
  const keeping = comparable && counted - state.counted >= KEEPING * unit && !seen.isBeside;
  const keptBytes = keeping && now - state.gaveSeconds > ROW_SECONDS ? keeps(state, seen) : state.keptBytes;
  const { guessedBytes } = seen;
  const counts = {
    statsSeconds,
    signal,
    missing: seen.missing,
    counted,
    stalls,
    swappedIn,
    swapped,
    actualBytes: actual,
    freeBytes: seen.toldFree,
  };
  // What went into the balloon is no use of the guest's own.
  const used = (state.freeBytes - seen.toldFree - (actual - state.actualBytes)) / seconds;
  const known = withUse({ ...followed, ...counts, keptBytes, guessedBytes }, used, now);
  // Memory that was given and is free yet: nothing is reclaimed, whatever the guest reads.
  if (!comparable || (state.phase === 'grow' && seen.free > FREE_KEPT * seen.scale)) return known;
  const asked = signal === 'reclaim' ? Math.max(0, actual - state.actualBytes) : 0;
  const instant = Math.max(0, counted - state.counted - asked) / seconds;
  return withRate(known, instant, seconds, now);
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
  const why = Number.isNaN(seen.statsSeconds) ? ({ kind: 'blind', lacks: 'statistics' } as const) : WAITS;
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
  const isUsed = seen.free + coming <= (FREE_KEPT + LEAST_MOVE) * scale;
  if (seen.swappedIn - before.swappedIn >= HURT * scale && isUsed) return 'swaps';
  // A stream stalls where it is squeezed.
  return stalls > before.stalls && spare < 0 && !seen.isBeside ? 'stalled' : null;
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
  // Where a stream is known, the memory may be for something beside it.
  const fresh = Number.isNaN(state.growthBytes) && streamRate(state, now) === 0;
  const growthBytes = need !== 'reads' ? NaN : fresh ? seen.target : state.growthBytes;
  const next = { ...begin(undone, 'grow', now), gives: gives + 1, gaveSeconds: now, row: 0, growthBytes };
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
  const swapped = risen(state.swapped, state.swappedBefore);
  const counted = risen(state.counted, state.countedBefore);
  const asked = signal === 'reclaim' ? Math.max(0, state.stepBytes - seen.owed) : 0;
  const streamed = seconds * streamMost(state, now);
  // What is swapped makes room as reclaim does, and is never of no use.
  // What the kernel reclaimed beyond that and left free made room for nothing.
  const left = signal === 'reclaim' ? risen(seen.toldFree, state.freeBefore) : 0;
  const excess = Math.max(0, counted - asked - left - streamed) + swapped;
  const broughtBytes = counted + swapped;
  const probed = { ...state, probedSeconds: now, probedBytes: state.stepBytes, broughtBytes };
  const calm = isPatient(state, now) && now - state.busySeconds >= CALM_SECONDS;
  if (!calm && excess >= HURT * scale) {
    const least = streamed > 0 ? BESIDE_SECONDS : isPatient(state, now) ? PATIENT_SECONDS : 0;
    if (seconds < least) return { next: state, toBytes: target, why: WAITS };
    // The mean has what the probe brought, which says nothing of the time after it.
    const after = { ...begin(probed, 'rest', now), hurtAtBytes: target, rate: streamRate(state, now) };
    const next = { ...leave(after, now), gives: 0, gaveSeconds: now, hurts: state.hurts + 1 };
    // A stream comes at another rate for many reasons, so little is made of it.
    const slack = seen.isBeside ? LEAST_MOVE : SLACK;
    const toBytes = target - state.stepBytes - slack * scale;
    return { next, toBytes, why: { kind: 'hurt', bytes: state.stepBytes, broughtBytes } };
  }
  if (seconds < PROBE_SECONDS) return { next: state, toBytes: target, why: WAITS };
  if (seen.owed > seen.unit) return stuck(state, seen, now);
  // Well below the size at which it hurt: the working set shrank.
  const leaveSeconds = target >= state.hurtAtBytes + SLACK * scale ? LEAVE_SECONDS.first : state.leaveSeconds;
  return growOrSqueeze({ ...begin(probed, 'rest', now), row: state.row + 1, leaveSeconds }, seen, now);
}

/**
 * A working set that became smaller is read again as a whole, once: its kernel may give up pages of it before those that are
 * of no use any more. So each second step that hurts may do so for longer, where no stream hides when it is over.
 */
function isPatient(state: SizeState, now: number): boolean {
  return state.hurts % 2 === 1 && !isKnown(state, now);
}

function risen(count: number, before: number): number {
  return Math.max(0, count - before) || 0;
}

/** A guest that does not give up what is asked of it is asked for no more than it gave. */
function stuck(state: SizeState, seen: SizeFacts, now: number): Decision {
  // A guest that gives and takes by turns comes nearer again and again.
  const isLong = state.phase === 'probe' && now - state.phaseSeconds >= 2 * STUCK_SECONDS;
  if (now - state.stuckSeconds < STUCK_SECONDS && !isLong)
    return { next: state, toBytes: seen.target, why: WAITS };
  // A stream has other memory free from moment to moment.
  const keptBytes = seen.isBeside ? state.keptBytes : Math.max(state.keptBytes, seen.toldFree);
  const rests = leave(begin(state, 'rest', now), now);
  const next = { ...rests, stuckSeconds: now, keptBytes, hurtAtBytes: seen.actual };
  return { next, toBytes: seen.actual, why: { kind: 'refused', bytes: seen.owed } };
}

function growOrSqueeze(state: SizeState, seen: SizeFacts, now: number): Decision {
  if (state.phase === 'grow') return grow(state, seen, now);
  if (!isHot(state, seen, now)) return squeeze(state, seen, now);
  return grow({ ...begin(state, 'grow', now), growthBytes: NaN, growthRate: 0 }, seen, now);
}

/** The guest goes on reclaiming: it gets more while it uses up what it got, until it fits or all was given. */
function grow(state: SizeState, seen: SizeFacts, now: number): Decision {
  const { target, scale, free, least } = seen;
  const same = (next: SizeState, why: SizeWhy): Decision => ({ next, toBytes: target, why });
  const fits = (): Decision => {
    const next = { ...begin(state, 'rest', now), rate: streamRate(state, now) };
    const leaveUntil = Math.max(state.leaveUntil, now + FITS_SHARE * state.leaveSeconds);
    return same(isKnown(state, now) ? next : { ...next, leaveUntil, row: 0 }, { kind: 'fits' });
  };
  if (free > FREE_KEPT * scale) {
    const stays = free >= state.roomyBytes - LEAST_MOVE * scale && !Number.isNaN(state.roomySeconds);
    if (!stays) return same({ ...state, roomySeconds: now, roomyBytes: free }, WAITS);
    const long = free >= ROOMY * scale ? ROOMY_SECONDS.roomy : ROOMY_SECONDS.less;
    return now - state.roomySeconds >= long ? fits() : same(state, WAITS);
  }
  const since = Number.isNaN(state.usedSeconds) ? { usedSeconds: now, countedBefore: state.counted } : {};
  const used = { ...state, roomySeconds: NaN, ...since };
  const seconds = now - used.usedSeconds;
  const waited = seconds >= ROW_SECONDS;
  if (!isHot(used, seen, now)) return waited ? fits() : same(used, WAITS);
  if (giftRoom(seen) >= PAGE_BYTES) return give(used, seen, now, 'reads');
  // Files that were read to their ends meanwhile are no stream, and nothing hurt.
  if (now - used.busySeconds >= CALM_SECONDS && seconds >= CALM_SECONDS)
    return same({ ...begin(used, 'rest', now), rate: 0 }, { kind: 'fits' });
  const counted = risen(used.counted, used.countedBefore);
  // Once all pages of the page cache were replaced, a set that is read over and over, and fits, reads none again.
  const turned = counted >= seen.caches || seconds >= TURNED_MOST_SECONDS || wasKnown(used, now);
  if (!turned || !waited) return same(used, WAITS);
  // The host has no more to give: that says nothing of the guest.
  if (target >= least + PAGE_BYTES) return fits();
  const rate = counted / seconds;
  // What was given changed nothing, and is taken back at once; what changed something is looked for in probes.
  const back = gainedNothing(used, rate) ? Math.min(used.growthBytes - target, seen.spare) : 0;
  const why = { kind: 'stream', bytesPerSecond: rate } as const;
  return { next: knowStream(used, rate, now), toBytes: target + (Math.max(0, back) || 0), why };
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
  if (spare < LEAST_MOVE * scale || signal === 'none' || isLeft(state, seen, now))
    return isStale(state, seen, now) ? air(state, seen, now) : same;
  const first = Math.min(MOST_FIRST_PROBE * scale, Math.max(LEAST_MOVE * scale, PROBE_SHARE * caches));
  // Where nothing hurt so far, and until something does beside a stream that was just found, steps are larger.
  const found = streamRate(state, now) > 0 && state.leaveUntil <= state.streamFound;
  const wished = found ? Infinity : first * 2 ** state.row;
  const most = Math.min(wished, spare / 2, seen.sure / 2, MOST_MOVE * scale);
  const bytes = wholePages(Math.min(room, Math.max(first, most)));
  const next = {
    ...begin(state, 'probe', now),
    stepBytes: bytes,
    countedBefore: state.counted,
    freeBefore: seen.toldFree,
    // A stream that is over hides nothing.
    probeRate: now - state.busySeconds < CALM_SECONDS ? state.rate : 0,
    swappedBefore: state.swapped,
  };
  return { next, toBytes: target + bytes, why: { kind: 'probes', bytes } };
}

/** Whether the page cache is left alone, because a step hurt. A stream that got more memory since is squeezed as far again. */
function isLeft(state: SizeState, { target, scale }: SizeFacts, now: number): boolean {
  const isLarger = isKnown(state, now) && target < state.hurtAtBytes - state.stepBytes - SLACK * scale;
  return now < state.leaveUntil && !isLarger;
}

/** Whether free memory of a guest at rest takes up memory of the host. */
function isStale(state: SizeState, seen: SizeFacts, now: number): boolean {
  const rests = now - Math.max(state.phaseSeconds, state.busySeconds) >= ROW_SECONDS;
  const much = seen.stale >= STALE * seen.scale && giftRoom(seen) >= AIR * seen.scale;
  return rests && much && now >= state.airUntil && !isBeside(state, now);
}

/** Gives so much memory that the driver reports memory that is free: for that, Linux must have much of it. */
function air(state: SizeState, seen: SizeFacts, now: number): Decision {
  const bytes = AIR * seen.scale;
  const next = { ...begin(state, 'air', now), airedSeconds: NaN, staleBytes: seen.stale };
  return { next, toBytes: seen.target - bytes, why: { kind: 'airs', bytes } };
}

/** Waits for the reports. Memory that is free afterwards is taken again. */
function airing(state: SizeState, seen: SizeFacts, now: number): Decision {
  const aired = seen.coming > seen.unit ? NaN : state.airedSeconds || now;
  const late = now - state.phaseSeconds >= AIRED_MOST_SECONDS;
  if (!late && !(now - aired >= AIRED_SECONDS))
    return { next: { ...state, airedSeconds: aired }, toBytes: seen.target, why: WAITS };
  // A guest that reports little is aired ever less often.
  const airSeconds =
    seen.stale < state.staleBytes / 2 ? AIR_SECONDS.first : Math.min(AIR_SECONDS.most, 2 * state.airSeconds);
  return squeeze({ ...begin(state, 'rest', now), airSeconds, airUntil: now + airSeconds }, seen, now);
}

function isHot(state: SizeState, { scale }: SizeFacts, now: number): boolean {
  return state.rate > HOT * scale + streamPeak(state, now);
}

/** The target within the limits. */
function held(target: number, { least, most }: SizeFacts): number {
  return wholePages(Math.min(most, Math.max(least, target)));
}

/** Seconds until the next look: soon while something moves, later the longer nothing does. */
function again(state: SizeState, seen: SizeFacts, now: number, moved: boolean): number {
  if (state.phase === 'grow') return GROWING_AGAIN;
  const moving = moved || state.phase !== 'rest' || seen.coming > seen.unit || seen.owed > seen.unit;
  if (moving || now - state.gaveSeconds < ROW_SECONDS) return MOVING_AGAIN;
  const rested = (now - state.phaseSeconds) * REST_SHARE;
  const left = state.leaveUntil > now ? state.leaveUntil - now : Infinity;
  const most = isBeside(state, now) ? BESIDE_AGAIN : REST_AGAIN;
  return Math.max(MOVING_AGAIN, Math.min(most, rested, left));
}
