/**
 * What plan() has to remember from one call to the next. It never changes one that it was given. Rungs count the
 * steps of force that a VM is under: 0 is none, then HIGH_STEPS of memory.high, memory.max, and being killed.
 */
export const HIGH_STEPS = 3;
export const MAX_RUNG = HIGH_STEPS + 1;
export const KILL_RUNG = HIGH_STEPS + 2;

export interface PolicyState {
  /** Whether the host was short of its reserve, and is not yet beyond it again by the margin. */
  readonly short: boolean;
  readonly rung: Uint8Array;
  /** When the grace that runs began, and what the guest owed then. */
  readonly markSeconds: Float64Array;
  readonly markBytes: Float64Array;
  readonly takenSeconds: Float64Array;
  readonly givenSeconds: Float64Array;
  /** Given back, and perhaps not touched yet. */
  readonly givenBytes: Float64Array;
  /** Until then nothing is asked of it: it withstood all that may be done. */
  readonly refusedUntilSeconds: Float64Array;
}

export function emptyState(count: number): PolicyState {
  return {
    short: false,
    rung: new Uint8Array(count),
    markSeconds: new Float64Array(count),
    markBytes: new Float64Array(count),
    takenSeconds: new Float64Array(count).fill(-Infinity),
    givenSeconds: new Float64Array(count).fill(-Infinity),
    givenBytes: new Float64Array(count),
    refusedUntilSeconds: new Float64Array(count).fill(-Infinity),
  };
}

export function copyState(state: PolicyState): PolicyState {
  return {
    ...state,
    rung: state.rung.slice(),
    markSeconds: state.markSeconds.slice(),
    markBytes: state.markBytes.slice(),
    takenSeconds: state.takenSeconds.slice(),
    givenSeconds: state.givenSeconds.slice(),
    givenBytes: state.givenBytes.slice(),
    refusedUntilSeconds: state.refusedUntilSeconds.slice(),
  };
}

/** The state for other rows: `from` has, for each new row, the old one, or -1. */
export function moveRows(state: PolicyState, from: readonly number[]): PolicyState {
  const moved = emptyState(from.length);
  from.forEach((old, row) => {
    if (old < 0) return;
    moved.rung[row] = state.rung[old] ?? 0;
    moved.markSeconds[row] = state.markSeconds[old] ?? 0;
    moved.markBytes[row] = state.markBytes[old] ?? 0;
    moved.takenSeconds[row] = state.takenSeconds[old] ?? -Infinity;
    moved.givenSeconds[row] = state.givenSeconds[old] ?? -Infinity;
    moved.givenBytes[row] = state.givenBytes[old] ?? 0;
    moved.refusedUntilSeconds[row] = state.refusedUntilSeconds[old] ?? -Infinity;
  });
  return { ...moved, short: state.short };
}
