/**
 * What the law of working-set.ts knows of a VM from one step to the next, and its reasons. Sizes are bytes, moments are
 * seconds of the caller's clock.
 */
import type { Kept, Missing, Signal } from './working-set-reading.js';

/**
 * Why a guest gets memory: little is available, it took pages by itself, it waited for memory, it reads from its swap, or it
 * goes on reclaiming.
 */
export type Need = 'short' | 'took' | 'stalled' | 'swaps' | 'reads';

/** The reason for a target, with its figures in bytes. */
export type SizeWhy =
  /** The target is what it was: nothing new was said, or the guest is on its way to the target. */
  | { readonly kind: 'waits' }
  | { readonly kind: 'settled' }
  /** The guest sends no statistics, or does not say how much of its memory is free. */
  | { readonly kind: 'blind'; readonly lacks: 'statistics' | 'free' }
  | { readonly kind: 'took-free'; readonly bytes: number }
  | { readonly kind: 'probes'; readonly bytes: number }
  | { readonly kind: 'hurt'; readonly bytes: number; readonly broughtBytes: number }
  | { readonly kind: 'gave'; readonly bytes: number; readonly need: Need }
  /** All that may be given was given, and the guest goes on: a stream of so many bytes a second. */
  | { readonly kind: 'stream'; readonly bytesPerSecond: number }
  | { readonly kind: 'fits' }
  /** Gives so much for some seconds, so that the guest's driver reports the memory that is free. */
  | { readonly kind: 'airs'; readonly bytes: number }
  /** The statistics stopped in a probe: the step is given back. */
  | { readonly kind: 'unanswered'; readonly bytes: number }
  /** The guest gives up no more: the target is what it gave. */
  | { readonly kind: 'refused'; readonly bytes: number }
  /** A limit moved the target. */
  | { readonly kind: 'limit' };

/** The memory of the law from one step to the next. Moments are seconds of the caller's clock. */
export interface SizeState extends Kept {
  readonly phase: 'rest' | 'probe' | 'grow' | 'air';
  /** Of the last step; and the moment at which the phase began. */
  readonly nowSeconds: number;
  readonly phaseSeconds: number;
  /** Of the last statistics: their moment, and what they counted by which signal. */
  readonly statsSeconds: number;
  readonly signal: Signal;
  readonly missing: readonly Missing[];
  readonly counted: number;
  readonly stalls: number;
  readonly swappedIn: number;
  readonly swapped: number;
  readonly actualBytes: number;
  /** A mean of the bytes that the guest reclaims in a second, beyond those that the balloon took. */
  readonly rate: number;
  /** The highest of them since the phase or the last gift began. */
  readonly peakRate: number;
  /** The last moment at which it reclaimed, or used up memory that it had free. */
  readonly busySeconds: number;
  /** The memory that it had free then, by its last statistics. */
  readonly freeBytes: number;
  /** The target of the last step; whether the guest reached it. */
  readonly targetBytes: number;
  readonly reached: boolean;
  /** Since when the guest has come no nearer to its target. */
  readonly stuckSeconds: number;
  /** The step that the probe took, what was counted and free before it, and how many probes in a row hurt nothing. */
  readonly stepBytes: number;
  readonly countedBefore: number;
  readonly freeBefore: number;
  readonly probeRate: number;
  readonly swappedBefore: number;
  readonly row: number;
  /** How many probes hurt. */
  readonly hurts: number;
  /** How often memory was given in a row. */
  readonly gives: number;
  readonly gaveSeconds: number;
  /** The target before memory was given for no other reason than that the guest goes on reclaiming; NaN: none was. */
  readonly growthBytes: number;
  /** The highest mean since then. */
  readonly growthRate: number;
  /** Since when a guest that grows has used up what it was given; NaN: it has not. */
  readonly usedSeconds: number;
  /** Since when so much stays free while the guest grows; NaN: not enough does. */
  readonly roomySeconds: number;
  readonly roomyBytes: number;
  /** Until then the page cache is left alone, after a step that hurt, the last time at this target, or after memory fitted; and for how long after the next step. */
  readonly leaveUntil: number;
  readonly leaveSeconds: number;
  readonly hurtAtBytes: number;
  /** A stream of that rate is known until then, and was found then; the next time it is known for so long. */
  readonly streamRate: number;
  readonly streamPeak: number;
  readonly streamUntil: number;
  readonly streamSeconds: number;
  readonly streamFound: number;
  /** Since when a guest that is aired has the memory; until then it is not aired again; and for how long the next time. */
  readonly airedSeconds: number;
  readonly airUntil: number;
  readonly airSeconds: number;
  /** The free memory that the host had before it was aired. */
  readonly staleBytes: number;
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

export const LEAVE_SECONDS = { first: 10, most: 60 } as const;
export const STREAM_SECONDS = { first: 180, most: 720 } as const;
export const AIR_SECONDS = { first: 15, most: 3840 } as const;

/** The state of a VM that the law has not looked at yet. */
export const UNSIZED: SizeState = {
  phase: 'rest',
  nowSeconds: -Infinity,
  phaseSeconds: -Infinity,
  statsSeconds: NaN,
  signal: 'none',
  missing: [],
  counted: NaN,
  stalls: NaN,
  swappedIn: NaN,
  swapped: NaN,
  actualBytes: 0,
  keptBytes: 0,
  guessedBytes: 0,
  rate: 0,
  peakRate: 0,
  busySeconds: -Infinity,
  freeBytes: NaN,
  targetBytes: NaN,
  reached: false,
  stuckSeconds: NaN,
  stepBytes: 0,
  countedBefore: 0,
  freeBefore: NaN,
  probeRate: 0,
  swappedBefore: 0,
  row: 0,
  hurts: 0,
  gives: 0,
  gaveSeconds: -Infinity,
  growthBytes: NaN,
  growthRate: 0,
  usedSeconds: NaN,
  roomySeconds: NaN,
  roomyBytes: 0,
  leaveUntil: -Infinity,
  leaveSeconds: LEAVE_SECONDS.first,
  hurtAtBytes: 0,
  streamRate: 0,
  streamPeak: 0,
  streamUntil: -Infinity,
  streamSeconds: STREAM_SECONDS.first,
  streamFound: -Infinity,
  airedSeconds: NaN,
  airUntil: -Infinity,
  airSeconds: AIR_SECONDS.first,
  staleBytes: 0,
  probedSeconds: NaN,
  probedBytes: NaN,
  broughtBytes: NaN,
};

export function begin(state: SizeState, phase: SizeState['phase'], now: number): SizeState {
  return { ...state, phase, phaseSeconds: now, usedSeconds: NaN, roomySeconds: NaN, peakRate: 0 };
}

/** Leaves the page cache alone for a while, twice as long the next time. */
export function leave(state: SizeState, now: number): SizeState {
  const leaveSeconds = Math.min(LEAVE_SECONDS.most, 2 * state.leaveSeconds);
  return { ...state, leaveUntil: now + state.leaveSeconds, leaveSeconds, row: 0 };
}
