import type { Cause } from './action.js';

const SIZES = [
  'quantum',
  'target',
  'actual',
  'usable',
  'untouched',
  'spared',
  'shed',
  'idle',
  'hollow',
  'want',
  'cap',
  'weight',
  'taken',
  'given',
] as const;

/**
 * The columns that one plan is worked out in, a row for each VM, in bytes. A planner makes them once and uses them for
 * each plan, since to allocate them would be most of the work; nothing in them outlives the plan.
 */
export class Columns {
  /** The smallest change of a target. */
  quantum = new Float64Array(0);
  /** The memory that the guest is to do without, and the memory that it does without. */
  target = new Float64Array(0);
  actual = new Float64Array(0);
  /** The memory that the guest may use, and the part of it that is not on the host. */
  usable = new Float64Array(0);
  untouched = new Float64Array(0);
  /** The memory that the guest could do without, including the memory that it owes or shed. */
  spared = new Float64Array(0);
  /** The memory that a guest with a page cache balloon gave up by itself, beyond what it owes. */
  shed = new Float64Array(0);
  /** The memory that the guest could do without beside what it owes and shed. */
  idle = new Float64Array(0);
  /** The part of the idle memory that was never touched: a balloon that takes it brings the host nothing. */
  hollow = new Float64Array(0);
  /** The memory that the guest is short of. */
  want = new Float64Array(0);
  /** The most that the pass that runs may take or give, and the share of the VM in it. */
  cap = new Float64Array(0);
  weight = new Float64Array(0);
  /** The memory that this plan takes from the VM, and gives to it. */
  taken = new Float64Array(0);
  given = new Float64Array(0);
  /** The reason for that, and the row at the other end of it. */
  cause: Cause[] = [];
  counterpart = new Int32Array(0);
  /** 1: the guest stalls, has little memory left or has less than its floor. */
  pressed = new Uint8Array(0);

  /** Makes room for `count` rows with nothing taken and nothing given. */
  reset(count: number): void {
    if (this.quantum.length < count) {
      for (const name of SIZES) this[name] = new Float64Array(count);
      this.counterpart = new Int32Array(count);
      this.pressed = new Uint8Array(count);
      return;
    }
    this.taken.fill(0, 0, count);
    this.given.fill(0, 0, count);
  }
}

/** The value of a row; NaN beyond the last row. */
export function at(column: Float64Array | Uint8Array | Int32Array, row: number): number {
  return column[row] ?? NaN;
}
