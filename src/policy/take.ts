/** Takes memory from VMs: idle memory first and lower bands first, no lower than floors. */
import { HOST } from './action.js';
import { at } from './columns.js';
import { HEADROOM_SHARE, PAGE_BYTES } from './facts.js';
import { FIRM } from './inputs.js';
import { share } from './share.js';
import { firmHeadroomBytes } from './working-set-reading.js';
import { NO_BAND, type Turn } from './turn.js';

/** The one that memory is taken for: a VM in a band, or the host itself (HOST in NO_BAND). */
export interface Receiver {
  readonly row: number;
  readonly band: number;
  /** How far balloons grow by the urgent ramp, from 0 (by the other one) to 1. */
  readonly urgency: number;
}

/**
 * Of the memory of the host that a guest could do without, so much is taken before the guest says again how much that is, where it could take
 * nothing back: it may grow meanwhile.
 */
const FIRM_SHARE = 0.5;
/** Of memory that is taken from such a guest, so much has to reach the host at least. */
const LEAST_SOLID_SHARE = 0.25;

/** The memory that is looked at: that which is idle, that in use, that of guests which are short themselves. */
type Pass = 'idle' | 'used' | 'stalling';

/** Takes up to `amount` bytes, and returns the bytes that will come. */
export function take(turn: Turn, amount: number, receiver: Receiver): number {
  const { config, critical } = turn.facts;
  const forHost = receiver.band === NO_BAND;
  let wanted = amount;
  // The host waits for memory that a ramp holds back for as long as it can: higher bands do not pay for it.
  let awaited = 0;
  const from = (pass: Pass, above: number): void => {
    for (let band = config.bands.length - 1; band > above && wanted > awaited; band--) {
      const { bytes, laterBytes } = takeFrom(turn, band, pass, wanted - awaited, receiver);
      wanted -= bytes;
      if (forHost && !critical) awaited += laterBytes;
    }
  };
  // Memory that the highest band uses goes last.
  const highest = config.bands.length === 1 ? -1 : 0;
  const above = forHost ? highest : receiver.band;
  from('idle', -1);
  from('used', above);
  if (!forHost || critical) from('stalling', above);
  if (forHost && critical) from('used', -1);
  return amount - wanted;
}

/** Returns the bytes that will come from this band, and those that only its ramps hold back. */
function takeFrom(
  turn: Turn,
  band: number,
  pass: Pass,
  amount: number,
  receiver: Receiver,
): { bytes: number; laterBytes: number } {
  const { columns } = turn;
  const { taken, hollow, weight } = columns;
  const { donors, laterBytes } = donorsOf(turn, band, pass, receiver);
  if (donors.length === 0) return { bytes: 0, laterBytes };
  let along = 0;
  for (const row of donors) {
    weight[row] = weightOf(turn, row, pass);
    if (at(taken, row) === 0)
      turn.note(row, receiver.band === NO_BAND ? 'host-short' : 'needed-elsewhere', receiver.row);
    along += Math.max(0, at(hollow, row) - at(taken, row));
  }
  const before = solid(turn, donors);
  share(amount + along, donors, columns, taken, 'at least');
  return { bytes: solid(turn, donors) - before, laterBytes };
}

/** The VMs of a band that something can be taken from, with the most of each as its cap. */
function donorsOf(
  turn: Turn,
  band: number,
  pass: Pass,
  receiver: Receiver,
): { donors: number[]; laterBytes: number } {
  const { facts, columns } = turn;
  const { quantum, taken, hollow, idle, cap, pressed } = columns;
  const { vms } = facts;
  const donors: number[] = [];
  let laterBytes = 0;
  for (let row = 0; row < vms.count; row++) {
    if (at(vms.band, row) !== band || !turn.mayTake(row, receiver.band)) continue;
    if (pass !== 'stalling' && at(pressed, row) === 1) continue;
    const toFloor = grant(turn, row) - at(vms.minBytes, row);
    if (toFloor < 0) continue;
    if (pass === 'idle' && at(idle, row) - at(hollow, row) < at(quantum, row)) continue;
    const now = Math.min(toFloor, turn.upRamp(row, receiver.urgency) + at(hollow, row));
    const pays = payable(turn, row, pass);
    const most = Math.min(now, pays);
    const later = Math.min(toFloor, pays) - Math.max(most, at(hollow, row), at(taken, row));
    if (later >= at(quantum, row)) laterBytes += later;
    if (most - at(taken, row) < Math.min(at(quantum, row), now)) continue;
    // To take memory that a guest never touched only keeps it from growing: nothing to keep the highest band from.
    if (band === 0 && most <= at(hollow, row)) continue;
    if (turn.isToBeAsked(row)) {
      laterBytes += Math.max(0, most - Math.max(at(hollow, row), at(taken, row)));
      continue;
    }
    cap[row] = most;
    donors.push(row);
  }
  return { donors, laterBytes };
}

/** The memory that the guest has for itself. */
function grant(turn: Turn, row: number): number {
  const { target, shed } = turn.columns;
  return at(turn.facts.vms.ramBytes, row) - at(target, row) - at(shed, row);
}

function weightOf(turn: Turn, row: number, pass: Pass): number {
  const bytes = pass === 'idle' ? at(turn.columns.idle, row) : grant(turn, row);
  return Math.max(1, bytes) / at(turn.facts.vms.weight, row);
}

/** The bytes that the host gets of the memory that is taken from these VMs. */
function solid(turn: Turn, rows: readonly number[]): number {
  const { taken, hollow } = turn.columns;
  let sum = 0;
  for (const row of rows) sum += Math.max(0, at(taken, row) - at(hollow, row));
  return sum;
}

/** The most that this pass may take from the VM, besides its floor and its ramp. */
function payable(turn: Turn, row: number, pass: Pass): number {
  const idle = pass === 'idle' ? taxable(turn, row) : Infinity;
  if (!turn.facts.has(row, FIRM)) return idle;
  const most = Math.min(idle, spareable(turn, row));
  const hollow = Math.min(most, at(turn.columns.hollow, row));
  return isBadBargain(most, hollow) ? 0 : hollow + FIRM_SHARE * (most - hollow);
}

/** Little of what would be taken reaches the host, and the guest could grow into the rest. */
function isBadBargain(bytes: number, hollowBytes: number): boolean {
  return bytes - hollowBytes < LEAST_SOLID_SHARE * bytes;
}

/** The idle memory that the tax lets take, counting memory that the VM did without before, down to some headroom. */
function taxable(turn: Turn, row: number): number {
  const { target, shed, idle } = turn.columns;
  const without = at(target, row) + at(shed, row);
  return Math.min(turn.facts.config.idleTax * (at(idle, row) + without) - without, spareable(turn, row));
}

/**
 * The idle memory beyond some headroom; of a guest that could take nothing back, only memory that it did without for some time, or, `inTime`,
 * memory that it may soon have done without for as long.
 */
function spareable(turn: Turn, row: number, inTime = false): number {
  const { idle, target, actual } = turn.columns;
  const { facts } = turn;
  const headroom = HEADROOM_SHARE * grant(turn, row);
  if (!facts.has(row, FIRM)) return at(idle, row) - headroom;
  const { steadyBytes, ramBytes } = facts.vms;
  const steady = at(steadyBytes, row) - Math.max(0, at(target, row) - at(actual, row));
  // Of a guest that has not said, the host knows which memory it never touched.
  const bytes = !inTime && steady < at(idle, row) ? steady : at(idle, row);
  return bytes - headroom - firmHeadroomBytes(at(ramBytes, row));
}

/** The part of the reserve that would be missing if each VM gave all that may be taken from it, now or soon. */
export function lackingBytes(turn: Turn): number {
  const { facts, columns } = turn;
  if (!facts.short) return 0;
  const { usable, untouched, target, actual, hollow } = columns;
  const { vms } = facts;
  let most = 0;
  for (let row = 0; row < vms.count; row++) {
    if (!turn.mayEverTake(row)) continue;
    const aboveFloor = at(usable, row) - at(untouched, row) - at(vms.minBytes, row);
    const owed = Math.max(0, at(target, row) - at(actual, row));
    let own = Infinity;
    if (facts.has(row, FIRM)) {
      const spare = spareable(turn, row, true);
      own = owed + (isBadBargain(spare, at(hollow, row)) ? 0 : spare - at(hollow, row));
    }
    most += Math.max(0, Math.min(aboveFloor, own));
  }
  return Math.max(0, facts.reserveBytes - facts.unclaimedBytes - most);
}

/** Takes memory from VMs that have more than their ceiling. */
export function lowerToCeilings(turn: Turn): void {
  const { facts, columns } = turn;
  const { target, quantum, taken } = columns;
  for (let row = 0; row < facts.vms.count; row++) {
    const { ramBytes, maxBytes } = facts.vms;
    const excess = at(ramBytes, row) - at(maxBytes, row) - at(target, row);
    if (excess < PAGE_BYTES || !turn.mayTake(row, NO_BAND)) continue;
    const part = Math.min(excess, turn.upRamp(row, 0));
    if (part < Math.min(excess, at(quantum, row))) continue;
    taken[row] = part;
    turn.note(row, 'above-ceiling', HOST);
  }
}
