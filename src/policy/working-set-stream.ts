/**
 * What the law of working-set.ts knows of streams: a guest that reads what it never reads again reclaims as much in a second
 * whatever its size. A stream is found where all memory was given and the guest goes on, and is known by its rate for a while.
 */
import { begin, STREAM_SECONDS, type SizeState } from './working-set-state.js';

/** A stream is itself as far as its rate is no more than a quarter higher. */
const MARGIN = 1.25;
/** Some seconds of it may have so many times the bytes of those before. */
const BURST_MARGIN = 1.5;
/** It goes on as long as the guest reclaims at this part of its rate; when it has ended, it is known for some seconds more. */
const LIVE_SHARE = 0.25;
const ENDED_SECONDS = 30;
/** However short it was, it is looked for no sooner again: that takes all memory. */
const FOUND_SECONDS = 60;
/** Its rate stays for a minute; then it falls with what is reclaimed. */
const HELD_SECONDS = 60;
const FALL_SECONDS = 120;
const RATE_SECONDS = 4;
/** A guest that reclaims or uses up less in a second is calm. */
const BUSY = 2 * 2 ** 20;
/** All of the reclaim was the stream's where so much of it went on with all memory given. */
const SAME_SHARE = 0.6;

/** The mean rate of the stream that is known; 0: none is. */
export function streamRate(state: SizeState, now: number): number {
  return isKnown(state, now) ? state.streamRate : 0;
}

/** Whether a stream is known, which may have ended some seconds ago. */
export function isKnown({ streamUntil }: SizeState, now: number): boolean {
  return now < streamUntil;
}

/** Whether a stream was known until a short while ago. */
export function wasKnown({ streamUntil }: SizeState, now: number): boolean {
  return now < streamUntil + FOUND_SECONDS;
}

/** The rate up to which all reclaim of a probe may be the stream's: what was reclaimed before it, as far as a stream is known. */
export function streamMost(state: SizeState, now: number): number {
  return Math.min(streamRate(state, now) * MARGIN, state.probeRate * BURST_MARGIN);
}

/** The rate beyond which something else than the stream certainly goes on. */
export function streamPeak(state: SizeState, now: number): number {
  return isKnown(state, now) ? state.streamPeak * MARGIN : 0;
}

/** Whether a stream that is known goes on. */
export function isBeside(state: SizeState, now: number): boolean {
  return isKnown(state, now) && lives(state.rate, state);
}

function lives(rate: number, state: SizeState): boolean {
  return rate >= LIVE_SHARE * state.streamRate;
}

/** All was given, and the guest goes on at that rate. */
export function knowStream(state: SizeState, rate: number, now: number): SizeState {
  const again = state.streamRate > 0 && rate < 2 * state.streamRate;
  const streamSeconds = again ? Math.min(STREAM_SECONDS.most, 2 * state.streamSeconds) : STREAM_SECONDS.first;
  const streamPeak = Math.max(rate, state.peakRate);
  const known = { rate, streamRate: rate, streamPeak, streamFound: now, streamSeconds };
  return {
    ...begin(state, 'rest', now),
    ...known,
    streamUntil: now + streamSeconds,
    leaveUntil: now,
    row: 0,
  };
}

/** Whether the guest goes on as before, with all the memory that was given since. */
export function gainedNothing({ growthRate }: SizeState, rate: number): boolean {
  return rate >= SAME_SHARE * growthRate;
}

/**
 * Notes that the guest used so many bytes a second of the memory that it had free. A kernel reclaims much at once, and then nothing until
 * that is used up, for seconds where little is read: that guest is not calm.
 */
export function withUse(state: SizeState, instant: number, now: number): SizeState {
  return instant > BUSY ? { ...state, busySeconds: now } : state;
}

/** Notes what the guest reclaimed: so many bytes a second, for so many seconds. */
export function withRate(state: SizeState, instant: number, seconds: number, now: number): SizeState {
  const rate = state.rate + (instant - state.rate) * (1 - Math.exp(-seconds / RATE_SECONDS));
  const rates = {
    ...state,
    rate,
    peakRate: Math.max(state.peakRate, instant),
    growthRate: Math.max(state.growthRate, rate),
    busySeconds: instant > BUSY ? now : state.busySeconds,
  };
  if (!isKnown(state, now)) return rates;
  const { streamUntil, streamFound } = state;
  // Reading that begins anew may be that of a set, which is read as fast as the disk allows, too.
  if (!lives(rate, state)) {
    const ended = Math.max(now + ENDED_SECONDS, streamFound + FOUND_SECONDS);
    return { ...rates, streamUntil: Math.min(streamUntil, ended) };
  }
  // A guest that is squeezed reclaims more or less than the stream does.
  if (state.phase !== 'rest') return rates;
  const grown = Math.max(state.streamRate, Math.min(rate, state.streamPeak));
  if (now - streamFound < HELD_SECONDS) return { ...rates, streamRate: grown };
  // It rises again at once, and falls slowly.
  const least = grown * Math.exp(-seconds / FALL_SECONDS);
  return { ...rates, streamRate: Math.min(grown, Math.max(rate, least)) };
}
