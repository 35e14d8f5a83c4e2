/** Gives memory to VMs: to guests that are short, and to all when the host has memory left over. */
import { HOST } from './action.js';
import { at } from './columns.js';
import { PAGE_BYTES } from './facts.js';
import { FIRM, MOVABLE, SIZED } from './inputs.js';
import { setRung } from './force.js';
import { share, type Rounding } from './share.js';
import { Column, get } from './state.js';
import { take } from './take.js';
import { NO_BAND, type Turn } from './turn.js';

/** Gives a band's guests the memory that they are short of: first memory that is left over, then memory on its way. */
export function relieve(turn: Turn, band: number): void {
  const { facts, columns } = turn;
  const { want, taken, weight, quantum, given } = columns;
  const rows: number[] = [];
  let wanted = 0;
  let neediest = HOST;
  for (let row = 0; row < facts.vms.count; row++) {
    if (at(facts.vms.band, row) !== band || at(want, row) <= 0 || at(taken, row) > 0) continue;
    rows.push(row);
    wanted += at(want, row);
    weight[row] = at(want, row) * at(facts.vms.weight, row);
    columns.cap[row] = at(want, row);
    if (neediest === HOST || at(want, row) > at(want, neediest)) neediest = row;
  }
  if (wanted === 0) return;
  if (turn.spareBytes < wanted) {
    const lacking = wanted - Math.max(0, turn.spareBytes);
    turn.spareBytes += take(turn, lacking, { row: neediest, band, urgency: 1 });
  }
  // A guest that would end programs gets the memory that the reserve is kept for.
  const firm = rows.filter((row) => facts.has(row, FIRM));
  const others = rows.filter((row) => !facts.has(row, FIRM));
  const gave =
    hand(turn, firm, turn.savingBytes, 'to the byte') +
    hand(turn, others, Math.min(turn.spareBytes, turn.givableBytes), 'at most');
  if (wanted - gave > at(quantum, neediest) && turn.unmetBand === NO_BAND) turn.unmetBand = band;
  const donor = largestDonor(turn, neediest);
  for (const row of rows) {
    if (at(given, row) <= 0) continue;
    const underFloor = at(columns.target, row) > facts.mostTarget(row);
    turn.note(row, underFloor ? 'below-floor' : 'guest-short', donor);
  }
}

/** Gives these VMs what they want, `mostBytes` at most; returns the bytes that were given. */
function hand(turn: Turn, rows: readonly number[], mostBytes: number, rounding: Rounding): number {
  const wanted = rows.reduce((sum, row) => sum + at(turn.columns.want, row), 0);
  const amount = Math.min(wanted, mostBytes);
  const gave = amount > 0 ? share(amount, rows, turn.columns, turn.columns.given, rounding) : 0;
  turn.spareBytes -= gave;
  turn.givableBytes -= gave;
  turn.savingBytes -= gave;
  return gave;
}

function largestDonor(turn: Turn, receiver: number): number {
  const { taken, counterpart } = turn.columns;
  let donor = HOST;
  for (let row = 0; row < turn.facts.vms.count; row++) {
    if (at(taken, row) <= 0 || counterpart[row] !== receiver) continue;
    if (donor === HOST || at(taken, row) > at(taken, donor)) donor = row;
  }
  return donor;
}

/** Gives back the memory that the host has left over, the highest band first. */
export function refund(turn: Turn): void {
  const { facts, columns } = turn;
  let rest = Math.min(turn.spareBytes, turn.givableBytes) - facts.refundMarginBytes;
  for (let band = 0; band < facts.config.bands.length && rest > 0; band++) {
    const rows: number[] = [];
    for (let row = 0; row < facts.vms.count; row++) {
      if (at(facts.vms.band, row) !== band) continue;
      const bytes = refundOf(turn, row);
      if (bytes === 0) continue;
      columns.cap[row] = bytes;
      columns.weight[row] = at(facts.vms.weight, row);
      rows.push(row);
    }
    rest -= share(rest, rows, columns, columns.given, 'at most');
    for (const row of rows) if (at(columns.given, row) > 0) turn.note(row, 'refund', HOST);
  }
}

/** The most that the VM may get back in this plan; 0 where it is left alone. */
function refundOf(turn: Turn, row: number): number {
  const { facts, columns } = turn;
  const { taken, given, target, quantum } = columns;
  if (!facts.has(row, MOVABLE) || facts.has(row, SIZED)) return 0;
  if (at(taken, row) > 0 || at(given, row) > 0) return 0;
  if (get(facts.previous, Column.rung, row) > 0) return 0;
  if (turn.since(row, Column.takenSeconds) < facts.config.holdSeconds) return 0;
  const owed = at(target, row) - facts.leastTarget(row);
  const most = Math.min(owed, turn.downRamp(row));
  return most < Math.min(owed, at(quantum, row)) || most < PAGE_BYTES ? 0 : most;
}

/** Makes actions of the memory that the VM is given. */
export function handBack(turn: Turn, row: number): void {
  const { facts, columns, next } = turn;
  const { given, target } = columns;
  if (at(given, row) < PAGE_BYTES) return;
  const from = at(target, row);
  const least = Math.max(from - at(given, row), facts.leastTarget(row));
  const to = Math.ceil(least / PAGE_BYTES) * PAGE_BYTES;
  given[row] = Math.max(0, from - to);
  if (to >= from) return;
  const reason = turn.noted(row);
  // Before the guest may use more.
  if (get(next, Column.rung, row) > 0) setRung(turn, row, 0, reason);
  turn.remember(row, Column.givenSeconds, facts.host.nowSeconds);
  turn.remember(row, Column.givenBytes, get(next, Column.givenBytes, row) + (from - to));
  turn.moveTarget(row, to, reason);
}
