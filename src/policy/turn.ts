/** One plan while it is made: the memory that is still to be had and given, and the actions so far. */
import { HOST, type Action, type Cause, type Reason } from './action.js';
import { at, type Columns } from './columns.js';
import { PAGE_BYTES, type Facts } from './facts.js';
import { FIRM, MOVABLE, TAKEABLE, UNASKABLE } from './inputs.js';
import type { Plan } from './planner.js';
import { Column, get, put, type PolicyState } from './state.js';

/** In place of a band, where the host itself is in need; lower than all bands. */
export const NO_BAND = 255;
/** Ramps do not save up more than this. */
const RAMP_WINDOW_SECONDS = 10;

/** The word of a guest that could take nothing back is believed for so long. */
const FRESH_SECONDS = 2;

export class Turn {
  readonly columns: Columns;
  readonly next: PolicyState & { readonly cells: Float64Array };
  readonly actions: Action[] = [];
  readonly #askFirst = new Set<number>();
  /** The memory beyond the host's goal, with all that is on its way, and the memory that the host can give now. */
  spareBytes: number;
  givableBytes: number;
  /** The memory that may be given to guests that would end programs otherwise. */
  savingBytes: number;
  /** The highest band whose guests did not get all that they are short of. */
  unmetBand = NO_BAND;

  constructor(readonly facts: Facts) {
    const { vms, short, previous } = facts;
    this.columns = facts.columns;
    this.next = { count: vms.count, short, cells: previous.cells.slice() };
    this.spareBytes = facts.spareBytes;
    this.givableBytes = facts.givableBytes;
    this.savingBytes = facts.savingBytes;
  }

  get plan(): Plan {
    return { actions: this.actions, next: this.next, askFirst: [...this.#askFirst] };
  }

  /** Seconds since a moment that was remembered of the VM before this plan. */
  since(row: number, column: Column): number {
    return this.facts.host.nowSeconds - get(this.facts.previous, column, row);
  }

  remember(row: number, column: Column, value: number): void {
    put(this.next, column, row, value);
  }

  /** Whether memory may be taken from the VM at all: now, or when the time has come. */
  mayEverTake(row: number): boolean {
    const { facts } = this;
    const refused = facts.host.nowSeconds < get(facts.previous, Column.refusedUntilSeconds, row);
    return facts.has(row, MOVABLE | TAKEABLE) && !refused;
  }

  /**
   * Whether what the guest says to have available is of the past, and has to be asked for before memory is taken: the guest could not
   * take back what it began to use since.
   */
  isToBeAsked(row: number): boolean {
    const { facts } = this;
    const { availableBytes, statsAgeSeconds } = facts.vms;
    const fresh = Math.min(FRESH_SECONDS, this.since(row, Column.takenSeconds));
    const isStale = at(statsAgeSeconds, row) > fresh && at(availableBytes, row) > 0;
    if (!isStale || !facts.has(row, FIRM)) return false;
    this.#askFirst.add(row);
    return true;
  }

  /** Whether memory may be taken from the VM for `band`, now. */
  mayTake(row: number, band: number): boolean {
    const { facts, next } = this;
    const { host, vms, config, critical } = facts;
    if (!this.mayEverTake(row) || at(this.columns.given, row) > 0) return false;
    const outranked = band < at(vms.band, row);
    const since = (column: Column): number => host.nowSeconds - get(next, column, row);
    // By will first: a page cache balloon that was let hold more has its grace time.
    const held =
      since(Column.givenSeconds) < config.holdSeconds || since(Column.letSeconds) < config.willSeconds;
    return outranked || critical || !held;
  }

  /** How far the target may rise in this plan, by its ramp and by the memory that the guest still owes. */
  upRamp(row: number, urgency: number): number {
    const { config, vms } = this.facts;
    const { target, actual, quantum } = this.columns;
    const seconds = Math.min(RAMP_WINDOW_SECONDS, this.since(row, Column.takenSeconds));
    const { rampShare, urgentRampShare } = config;
    const each = (rampShare + urgency * (urgentRampShare - rampShare)) * at(vms.ramBytes, row);
    const ahead = at(actual, row) + 2 * RAMP_WINDOW_SECONDS * each - at(target, row);
    const room = Math.min(each * seconds, ahead);
    return room < at(quantum, row) ? 0 : room;
  }

  /** How far the target may fall in this plan where the guest is not in need. */
  downRamp(row: number): number {
    const seconds = Math.min(RAMP_WINDOW_SECONDS, this.since(row, Column.givenSeconds));
    return this.facts.config.rampShare * at(this.facts.vms.ramBytes, row) * seconds;
  }

  note(row: number, cause: Cause, counterpart: number): void {
    this.columns.cause[row] = cause;
    this.columns.counterpart[row] = counterpart;
  }

  /** The reason that was noted for the VM. */
  noted(row: number): Reason {
    return this.reason(row, this.columns.cause[row] ?? 'refund', at(this.columns.counterpart, row));
  }

  reason(row: number, cause: Cause, counterpart = HOST): Reason {
    const { host, vms, reserveBytes } = this.facts;
    const { target, actual, idle, shed } = this.columns;
    return {
      cause,
      hostAvailableBytes: host.availableBytes,
      hostTotalBytes: host.totalBytes,
      reserveBytes,
      idleBytes: at(idle, row),
      shedBytes: at(shed, row),
      stallPercent: at(vms.stallPercent, row),
      missingBytes: Math.max(0, at(target, row) - at(actual, row)),
      counterpart,
    };
  }

  /** Asks the VM for another balloon; of a VM that cannot be asked, that much is expected from now on. */
  moveTarget(row: number, toBytes: number, reason: Reason): void {
    if (this.facts.has(row, UNASKABLE)) {
      this.remember(row, Column.expectedBytes, toBytes);
      return;
    }
    const fromBytes = at(this.columns.target, row);
    this.actions.push({ kind: 'target', row, fromBytes, toBytes, reason });
  }

  /** The target as this plan leaves it. */
  targetAfter(row: number): number {
    const { target, taken, given } = this.columns;
    return at(target, row) + at(taken, row) - at(given, row);
  }
}

/** Makes actions of the memory that was taken. */
export function ask(turn: Turn, row: number): void {
  const { facts, columns, next } = turn;
  const { taken, target, shed, cause } = columns;
  if (at(taken, row) < PAGE_BYTES) return;
  const from = at(target, row);
  // Under a ceiling, memory that the guest shed is all right.
  const along = cause[row] === 'above-ceiling' ? 0 : at(shed, row);
  const most = Math.min(from + along + at(taken, row), facts.mostTarget(row));
  const to = Math.floor(most / PAGE_BYTES) * PAGE_BYTES;
  taken[row] = Math.max(0, to - from);
  if (to <= from) return;
  turn.remember(row, Column.takenSeconds, facts.host.nowSeconds);
  turn.remember(row, Column.givenBytes, Math.max(0, get(next, Column.givenBytes, row) - (to - from)));
  const mark = get(next, Column.markBytes, row);
  if (mark > 0) turn.remember(row, Column.markBytes, mark + (to - from));
  turn.moveTarget(row, to, turn.noted(row));
}
