/**
 * The memory that a policy has of each VM from one plan to the next. plan() changes no earlier state. All columns
 * lie in one array, since copying them is most of what a call that changes something costs.
 */
export const HIGH_STEPS = 3;
export const MAX_RUNG = HIGH_STEPS + 1;
export const KILL_RUNG = HIGH_STEPS + 2;

export const Column = {
  /** Steps of force that the VM is under: 0 is none, then HIGH_STEPS of memory.high, memory.max, and being killed. */
  rung: 0,
  /** When the grace that runs began, and what the guest owed then. */
  markSeconds: 1,
  markBytes: 2,
  takenSeconds: 3,
  givenSeconds: 4,
  /** Given back, and perhaps not touched yet. */
  givenBytes: 5,
  /** Until then nothing is asked of it: it withstood all that may be done. */
  refusedUntilSeconds: 6,
  /** The target of a VM that cannot be asked: what the host is not to have of its memory. */
  expectedBytes: 7,
  /** When its page cache balloon was last let hold more. */
  letSeconds: 8,
} as const;
export type Column = (typeof Column)[keyof typeof Column];

const AT_FIRST = [0, 0, 0, -Infinity, -Infinity, 0, -Infinity, 0, -Infinity] as const;

export interface PolicyState {
  readonly count: number;
  /** Whether the host was short of its reserve, and is not yet beyond it again by the margin. */
  readonly short: boolean;
  readonly cells: Float64Array;
}

export function emptyState(count: number): PolicyState {
  const cells = new Float64Array(AT_FIRST.length * count);
  AT_FIRST.forEach((value, column) => cells.fill(value, column * count, (column + 1) * count));
  return { count, short: false, cells };
}

export function get(state: PolicyState, column: Column, row: number): number {
  return state.cells[column * state.count + row] ?? NaN;
}

export function put(state: PolicyState, column: Column, row: number, value: number): void {
  state.cells[column * state.count + row] = value;
}

/** The state for other rows: `from` has, for each new row, the old one, or -1. */
export function moveRows(state: PolicyState, from: readonly number[]): PolicyState {
  const moved = emptyState(from.length);
  from.forEach((old, row) => {
    if (old < 0) return;
    for (const column of Object.values(Column)) put(moved, column, row, get(state, column, old));
  });
  return { ...moved, short: state.short };
}
