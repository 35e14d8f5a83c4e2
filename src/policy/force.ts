/** Forces VMs that do not yield: one step up when a grace time is over, one step down when the need is. */
import type { LimitAction, Reason } from './action.js';
import { at } from './columns.js';
import { PAGE_BYTES, QUANTUM_SHARE } from './facts.js';
import { LIMITABLE, MOVABLE } from './inputs.js';
import { Column, get, HIGH_STEPS, KILL_RUNG, MAX_RUNG } from './state.js';
import type { Turn } from './turn.js';

/** A VM that is held to the memory that it uses may grow by this and 1/64 of its RAM, before it is killed for it. */
const FORCE_ROOM_BYTES = 16 * 2 ** 20;
/** Nothing is asked of a VM that withstood for this many times its will-grace. */
const REFUSED_GRACES = 10;

/** Looks at what the VM owes, and moves it by one step of force at most. */
export function climb(turn: Turn, row: number): void {
  const { facts, columns, next } = turn;
  const { config, host } = facts;
  const rung = get(next, Column.rung, row);
  const missing = turn.targetAfter(row) - at(columns.actual, row);
  const owes = missing > at(columns.quantum, row);
  if (!owes && rung === 0) {
    turn.remember(row, Column.markBytes, 0);
    return;
  }
  if (!owes || !isNeeded(turn, row)) {
    if (rung > 0) setRung(turn, row, rung - 1, turn.reason(row, owes ? 'not-needed' : 'yielded'));
    beginGrace(turn, row, Math.max(0, missing));
    return;
  }
  const mark = get(next, Column.markBytes, row);
  // A VM that had yielded all that it owed has the whole grace time for what it owes now.
  const isNew = mark === 0 || (rung === 0 && at(columns.target, row) <= at(columns.actual, row));
  if (isNew) {
    beginGrace(turn, row, missing);
    return;
  }
  const grace = (rung === 0 ? config.willSeconds : config.forceSeconds) * facts.pace(row);
  if (host.nowSeconds - get(next, Column.markSeconds, row) < grace) return;
  if (missing <= mark / 2) {
    beginGrace(turn, row, missing);
    return;
  }
  if (facts.has(row, LIMITABLE) && rung < highestRung(turn, row))
    setRung(turn, row, rung + 1, turn.reason(row, 'not-yielding'));
  else withstand(turn, row, rung);
}

/** The host is short, or a guest of a higher band lacks memory. */
function isNeeded(turn: Turn, row: number): boolean {
  const { facts, next, unmetBand } = turn;
  return facts.has(row, MOVABLE) && (next.short || unmetBand < at(facts.vms.band, row));
}

function highestRung(turn: Turn, row: number): number {
  const { config, vms } = turn.facts;
  return config.bands[at(vms.band, row)]?.kill === true ? KILL_RUNG : MAX_RUNG;
}

/** The VM has until the end of the grace time to yield half of what it owes now. */
function beginGrace(turn: Turn, row: number, owedBytes: number): void {
  turn.remember(row, Column.markSeconds, turn.facts.host.nowSeconds);
  turn.remember(row, Column.markBytes, owedBytes);
}

/** All steps were tried: the VM keeps its memory for a while, and others have to yield. */
function withstand(turn: Turn, row: number, rung: number): void {
  const { host, config } = turn.facts;
  const reason = turn.reason(row, 'withstood');
  if (rung > 0) setRung(turn, row, 0, reason);
  turn.remember(row, Column.markBytes, 0);
  turn.remember(row, Column.refusedUntilSeconds, host.nowSeconds + REFUSED_GRACES * config.willSeconds);
  turn.moveTarget(row, Math.max(0, at(turn.columns.actual, row)), reason);
}

/** Puts the VM under that step of force. */
export function setRung(turn: Turn, row: number, rung: number, reason: Reason): void {
  turn.remember(row, Column.rung, rung);
  turn.remember(row, Column.markSeconds, turn.facts.host.nowSeconds);
  turn.actions.push(rung === KILL_RUNG ? { kind: 'kill', row, reason } : limits(turn, row, rung, reason));
}

function limits(turn: Turn, row: number, rung: number, reason: Reason): LimitAction {
  const { vms } = turn.facts;
  const least = at(vms.ramBytes, row) - turn.targetAfter(row) + at(vms.overheadBytes, row);
  const now = Math.max(least, at(vms.currentBytes, row));
  const part = Math.min(rung, HIGH_STEPS) / HIGH_STEPS;
  // Below the memory in use, memory.max would kill, as there is no swap; and at it, for the next page of the VMM.
  const max = now + FORCE_ROOM_BYTES + at(vms.ramBytes, row) * QUANTUM_SHARE;
  return {
    kind: 'limit',
    row,
    rung,
    highBytes: rung === 0 ? null : wholePages(now - (now - least) * part),
    maxBytes: rung < MAX_RUNG ? null : wholePages(max),
    reason,
  };
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
