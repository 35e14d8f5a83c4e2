/**
 * Who gets the memory. A pure function of what the host sees, what guests claim, the configuration and what was
 * decided before: no clock, no I/O, nothing that is given is changed. Its rules, with the property that proves each in
 * test/policy/plan.property.test.ts:
 * - nobody falls below its floor or rises above its ceiling;
 * - what is given is there: over the reserve, or, up to half of the reserve, while as much is on its way from others;
 * - what is idle is taken first, the lowest band first, then what is used, the lowest band first; from a guest that
 *   stalls only for a higher band, or when half of the reserve is gone;
 * - by will first: force follows after the grace time, rung by rung, and is undone in reverse;
 * - the host takes up to `goal`, and gives from what is beyond that: a constant load moves nothing;
 * - who has a page cache balloon gives down to its floor and takes back by itself. Its target is a lower limit, and goes
 *   beyond what it gave by itself or stays where it is. Who has nothing else is asked for nothing: what it is expected to
 *   give, it gives by itself or by force.
 */
import type { Action, Cause, LimitAction, Reason } from './action.js';
import {
  LIMITABLE,
  MOVABLE,
  SELF_SIZED,
  TAKEABLE,
  UNASKABLE,
  type HostReading,
  type PolicyConfig,
  type VmTable,
} from './inputs.js';
import { share } from './share.js';
import { Column, get, HIGH_STEPS, KILL_RUNG, MAX_RUNG, put, type PolicyState } from './state.js';

export interface Plan {
  /** In the order in which they are to be done. */
  readonly actions: readonly Action[];
  readonly next: PolicyState;
}

const PAGE_BYTES = 4096;
/** Of a VM's RAM: the smallest change of a target. */
const QUANTUM_SHARE = 1 / 64;
/** Of what a guest may use: below LOW it is short, and gets up to HEADROOM; idle memory is taken down to HEADROOM. */
const LOW_SHARE = 0.04;
const HEADROOM_SHARE = 0.1;
/** Of its RAM: what a guest that stalls gets at once. */
const RELIEF_SHARE = 0.2;
const STALL_PERCENT = 5;
const HOST_PRESSURE_PERCENT = 20;
/** Of the reserve: how far beyond it the host is filled up, and how much further until it gives back by itself. */
const GOAL_MARGIN = 0.25;
const REFUND_MARGIN = 0.25;
/** Ramps do not save up more than this. */
const RAMP_WINDOW_SECONDS = 10;
/** And 1/64 of its RAM: what a VM that is held to what it uses may grow by, before it is killed for it. */
const FORCE_ROOM_BYTES = 16 * 2 ** 20;
/** Times its will-grace: how long nothing is asked of a VM that withstood. */
const REFUSED_GRACES = 10;

const HOST = -1;
const NO_BAND = 255;

/** Columns of one call; kept, since allocating them would be most of the work. */
class Workspace {
  quantum = new Float64Array(0);
  targets = new Float64Array(0);
  actuals = new Float64Array(0);
  /** Given by the guest itself, or about to be: the target has to go beyond it to bring the host anything. */
  selfGiven = new Float64Array(0);
  /** Beside that. */
  idle = new Float64Array(0);
  /** Never touched: a balloon that takes it brings the host nothing. */
  hollow = new Float64Array(0);
  want = new Float64Array(0);
  /** The most that may be taken in the pass that runs. */
  cap = new Float64Array(0);
  weight = new Float64Array(0);
  /** What is taken and given. */
  out = new Float64Array(0);
  back = new Float64Array(0);
  counterpart = new Int32Array(0);
  pressed = new Uint8Array(0);
  cause: Cause[] = [];

  reset(count: number): void {
    if (this.quantum.length < count) {
      for (const name of COLUMNS) this[name] = new Float64Array(count);
      this.counterpart = new Int32Array(count);
      this.pressed = new Uint8Array(count);
      return;
    }
    this.out.fill(0, 0, count);
    this.back.fill(0, 0, count);
  }
}

const COLUMNS = [
  'quantum',
  'targets',
  'actuals',
  'selfGiven',
  'idle',
  'hollow',
  'want',
  'cap',
  'weight',
  'out',
  'back',
] as const;

const work = new Workspace();

function at(column: Float64Array | Uint8Array | Int32Array, row: number): number {
  return column[row] ?? NaN;
}

export function plan(host: HostReading, vms: VmTable, config: PolicyConfig, previous: PolicyState): Plan {
  const { count } = vms;
  const { nowSeconds: now, availableBytes: available } = host;
  const reserve = config.reserveShare * host.totalBytes;
  const goal = reserve * (1 + GOAL_MARGIN);
  const { quantum, targets, actuals, selfGiven, idle, hollow, want, out, back, counterpart, pressed, cause } =
    prepare(count);
  const bandWants = config.bands.map(() => 0);

  // What is on its way to the host, and what guests were given and have yet to touch.
  let incoming = 0;
  let outstanding = 0;
  let owing = false;
  let ballooned = false;
  let overCeiling = false;
  let resized = false;
  for (let row = 0; row < count; row++) {
    const flags = at(vms.flags, row);
    const ram = at(vms.ramBytes, row);
    const current = at(vms.currentBytes, row);
    const held = at(vms.cachedBytes, row);
    const inBalloon = at(vms.actualBytes, row);
    const onHost = Math.min(current - at(vms.overheadBytes, row), ram - inBalloon - held);
    const askable = (flags & UNASKABLE) === 0;
    const target = askable
      ? at(vms.targetBytes, row)
      : Math.min(get(previous, Column.expectedBytes, row), cacheLimit(row));
    // Who cannot be asked has yielded what the host has not.
    const actual = askable ? inBalloon : bounded(ram - onHost, target);
    const usable = Math.max(0, ram - actual);
    const missing = target - actual;
    const owed = Math.max(0, missing);
    targets[row] = target;
    actuals[row] = actual;
    const rung = get(previous, Column.rung, row);
    const step = ram * QUANTUM_SHARE;
    quantum[row] = step;
    const claimed = at(vms.availableBytes, row);
    // What the guest never touched, or gave, the host sees by itself; that is idle whatever the guest says.
    const untouched = bounded(usable - onHost, usable);
    const idleNow = Math.max(bounded(claimed, usable), untouched);
    const cached = bounded(held, untouched);
    const absent = Math.max(0, untouched - owed);
    const itself = (flags & SELF_SIZED) !== 0 ? absent : 0;
    selfGiven[row] = itself;
    idle[row] = Math.max(0, idleNow - owed - itself);
    hollow[row] = absent - itself;
    want[row] = 0;
    pressed[row] = 0;
    // Also who has yielded in the meantime: its grace time is over, and the next one begins anew.
    if (get(previous, Column.markBytes, row) > 0) owing = true;
    if (missing > step || rung > 0) {
      owing = true;
      const yielding = rung === 0 && now - get(previous, Column.markSeconds, row) < config.willSeconds;
      if (missing > 0 && (yielding || get(previous, Column.markBytes, row) === 0))
        incoming += Math.max(0, missing - untouched);
    }
    const given = get(previous, Column.givenBytes, row);
    if (given > 0 && askable) {
      const unseen = Number.isNaN(current) ? bounded(at(vms.freeBytes, row), usable) : untouched - cached;
      outstanding += Math.min(given, unseen + Math.max(0, -missing));
    }
    if ((flags & MOVABLE) === 0) continue;
    if ((flags & SELF_SIZED) !== 0 && at(vms.cacheLimitBytes, row) !== cacheLimit(row)) resized = true;
    const least = Math.max(0, ram - at(vms.maxBytes, row));
    if (target < least) overCeiling = true;
    if (target <= least) continue;
    ballooned = true;
    const stall = at(vms.stallPercent, row);
    // Who reclaims its page cache waits for memory as well; who has some to spare is not short of it.
    const spares = Math.max(untouched, claimed >= 0 ? idleNow : 0) >= HEADROOM_SHARE * usable;
    const stalls = rung === 0 && stall >= STALL_PERCENT && !spares;
    const low = rung === 0 && claimed >= 0 && idleNow < LOW_SHARE * usable && missing <= step;
    const underFloor = target - (ram - at(vms.minBytes, row));
    if (!stalls && !low && underFloor < PAGE_BYTES) continue;
    pressed[row] = 1;
    // Nothing was taken from it that could be given.
    if (!askable) continue;
    const shortage = claimed >= 0 ? HEADROOM_SHARE * usable - idleNow : 0;
    const wish = Math.max(shortage, stalls ? RELIEF_SHARE * ram : 0, underFloor) - Math.max(0, -missing);
    if (wish <= 0) continue;
    const most = target - least;
    const wanted = Math.min(most, Math.max(wish, step));
    want[row] = wanted;
    const band = at(vms.band, row);
    bandWants[band] = (bandWants[band] ?? 0) + wanted;
  }
  // A guest that has never been asked for anything can stall as well: nothing is to be had for it, or from it.
  const spare = available - outstanding;
  const short =
    available < reserve ||
    (available < goal && (previous.short || host.pressurePercent >= HOST_PRESSURE_PERCENT));
  let soft = spare + incoming - goal;
  let hard = spare - reserve / 2;
  const wanting = bandWants.some((bytes) => bytes > 0);
  const refundable = ballooned && !short && soft > REFUND_MARGIN * reserve;
  if (!short && !wanting && !owing && !refundable && !overCeiling && !resized) {
    return { actions: [], next: short === previous.short ? previous : { ...previous, short } };
  }

  const next = { count, short, cells: previous.cells.slice() };
  const actions: Action[] = [];
  const critical = available < reserve / 2;
  let unmetBand = NO_BAND;

  if (resized) letSizeThemselves();
  if (overCeiling) lowerToCeilings();
  for (let band = 0; band < config.bands.length; band++) if ((bandWants[band] ?? 0) > 0) relieve(band);
  if (short && soft < 0) soft += take(-soft, NO_BAND, HOST, critical);
  if (refundable) refund();
  for (let row = 0; row < count; row++) if (at(out, row) >= PAGE_BYTES) emitTake(row);
  for (let row = 0; row < count; row++) if (at(back, row) >= PAGE_BYTES) emitGive(row);
  for (let row = 0; row < count; row++) climb(row);
  return { actions, next };

  function cacheLimit(row: number): number {
    return Math.floor((at(vms.ramBytes, row) - at(vms.minBytes, row)) / PAGE_BYTES) * PAGE_BYTES;
  }

  function letSizeThemselves(): void {
    const needed = MOVABLE | SELF_SIZED;
    for (let row = 0; row < count; row++) {
      const fromBytes = at(vms.cacheLimitBytes, row);
      const toBytes = cacheLimit(row);
      if ((at(vms.flags, row) & needed) !== needed || fromBytes === toBytes) continue;
      actions.push({
        kind: 'cache-limit',
        row,
        fromBytes,
        toBytes,
        reason: reasonOf(row, 'sizes-itself', HOST),
      });
      // By will first: without need, it is left to give by itself for a while.
      if (toBytes > fromBytes) put(next, Column.givenSeconds, row, now);
    }
  }

  /** How far the target may rise in this call, by its ramp and by what the guest still owes. */
  function ramp(row: number, urgent: boolean): number {
    const since = Math.min(RAMP_WINDOW_SECONDS, now - get(previous, Column.takenSeconds, row));
    const each = (urgent ? config.urgentRampShare : config.rampShare) * at(vms.ramBytes, row);
    const ahead = at(actuals, row) + 2 * RAMP_WINDOW_SECONDS * each - at(targets, row);
    const room = Math.min(each * since, ahead);
    return room < at(quantum, row) ? 0 : room;
  }

  function mayTake(row: number, forBand: number): boolean {
    const needed = MOVABLE | TAKEABLE;
    if ((at(vms.flags, row) & needed) !== needed || at(back, row) > 0) return false;
    if (now < get(previous, Column.refusedUntilSeconds, row)) return false;
    const outranked = forBand < at(vms.band, row);
    return outranked || critical || now - get(next, Column.givenSeconds, row) >= config.holdSeconds;
  }

  /** Takes up to `amount`; returns what will come. `forBand` is NO_BAND where the host itself is short. */
  function take(amount: number, forBand: number, receiver: number, urgent: boolean): number {
    let left = amount;
    // What the ramp holds back, the host waits for as long as it can: higher bands do not pay for it.
    let awaited = 0;
    // What the highest band uses is the last to go.
    const highest = config.bands.length === 1 ? -1 : 0;
    const above = forBand === NO_BAND ? highest : forBand;
    const from = (pass: 'idle' | 'used' | 'stalling', lowest: number): void => {
      for (let band = config.bands.length - 1; band > lowest && left > awaited; band--) {
        const { taken, heldBack } = takeFrom(band, pass, left - awaited, forBand, receiver, urgent);
        left -= taken;
        if (forBand === NO_BAND && !critical) awaited += heldBack;
      }
    };
    from('idle', -1);
    from('used', above);
    if (forBand !== NO_BAND || critical) from('stalling', above);
    if (forBand === NO_BAND && critical) from('used', -1);
    return amount - left;
  }

  function takeFrom(
    band: number,
    pass: 'idle' | 'used' | 'stalling',
    amount: number,
    forBand: number,
    receiver: number,
    urgent: boolean,
  ): { taken: number; heldBack: number } {
    const { cap, weight } = work;
    const rows: number[] = [];
    let extra = 0;
    let heldBack = 0;
    for (let row = 0; row < count; row++) {
      if (at(vms.band, row) !== band || !mayTake(row, forBand)) continue;
      if (pass !== 'stalling' && at(pressed, row) === 1) continue;
      const grant = at(vms.ramBytes, row) - at(targets, row) - at(selfGiven, row);
      const all = grant - at(vms.minBytes, row);
      if (all < 0) continue;
      const toFloor = Math.min(all, ramp(row, urgent) + at(hollow, row));
      if (pass === 'idle' && at(idle, row) - at(hollow, row) < at(quantum, row)) continue;
      const pays = pass === 'idle' ? taxable(row) : Infinity;
      const most = Math.min(toFloor, pays);
      const later = Math.min(all, pays) - Math.max(most, at(hollow, row), at(out, row));
      if (later >= at(quantum, row)) heldBack += later;
      if (most - at(out, row) < Math.min(at(quantum, row), toFloor)) continue;
      // To take what a guest never touched only keeps it from growing: nothing to keep the highest band from.
      if (band === 0 && most <= at(hollow, row)) continue;
      cap[row] = most;
      weight[row] = Math.max(1, pass === 'idle' ? at(idle, row) : grant) / at(vms.weight, row);
      if (at(out, row) === 0) {
        counterpart[row] = receiver;
        cause[row] = forBand === NO_BAND ? 'host-short' : 'needed-elsewhere';
      }
      rows.push(row);
      extra += Math.max(0, at(hollow, row) - at(out, row));
    }
    if (rows.length === 0) return { taken: 0, heldBack };
    const before = solid(rows);
    share(amount + extra, rows, cap, weight, quantum, out, true);
    return { taken: solid(rows) - before, heldBack };
  }

  /** What the host gets of what is taken from these. */
  function solid(rows: readonly number[]): number {
    let sum = 0;
    for (const row of rows) sum += Math.max(0, at(out, row) - at(hollow, row));
    return sum;
  }

  /** Idle memory that the tax lets take, with what the balloon has counted in, down to some headroom. */
  function taxable(row: number): number {
    const given = at(targets, row) + at(selfGiven, row);
    const spared = at(idle, row) - HEADROOM_SHARE * (at(vms.ramBytes, row) - given);
    return Math.min(config.idleTax * (at(idle, row) + given) - given, spared);
  }

  /** Gives a band's guests what they are short of: first what is over, then what is on its way from others. */
  function relieve(band: number): void {
    const { weight } = work;
    const rows: number[] = [];
    let wanted = 0;
    let neediest = HOST;
    for (let row = 0; row < count; row++) {
      if (at(vms.band, row) !== band || at(want, row) <= 0 || at(out, row) > 0) continue;
      rows.push(row);
      wanted += at(want, row);
      weight[row] = at(want, row) * at(vms.weight, row);
      if (neediest === HOST || at(want, row) > at(want, neediest)) neediest = row;
    }
    if (wanted === 0) return;
    if (soft < wanted) soft += take(wanted - Math.max(0, soft), band, neediest, true);
    const amount = Math.min(wanted, soft, hard);
    const gave = amount > 0 ? share(amount, rows, want, weight, quantum, back, false) : 0;
    soft -= gave;
    hard -= gave;
    if (wanted - gave > at(quantum, neediest) && unmetBand === NO_BAND) unmetBand = band;
    const donor = largestDonor(neediest);
    for (const row of rows) {
      if (at(back, row) <= 0) continue;
      counterpart[row] = donor;
      const ram = at(vms.ramBytes, row);
      cause[row] = at(targets, row) > ram - at(vms.minBytes, row) ? 'below-floor' : 'guest-short';
    }
  }

  function largestDonor(receiver: number): number {
    let donor = HOST;
    for (let row = 0; row < count; row++) {
      if (at(out, row) <= 0 || counterpart[row] !== receiver) continue;
      if (donor === HOST || at(out, row) > at(out, donor)) donor = row;
    }
    return donor;
  }

  function refund(): void {
    const { cap } = work;
    let left = Math.min(soft, hard) - REFUND_MARGIN * reserve;
    for (let band = 0; band < config.bands.length && left > 0; band++) {
      const rows: number[] = [];
      for (let row = 0; row < count; row++) {
        if (at(vms.band, row) !== band || (at(vms.flags, row) & MOVABLE) === 0) continue;
        if (at(out, row) > 0 || at(back, row) > 0 || get(previous, Column.rung, row) > 0) continue;
        if (now - get(previous, Column.takenSeconds, row) < config.holdSeconds) continue;
        const ram = at(vms.ramBytes, row);
        const owed = at(targets, row) - Math.max(0, ram - at(vms.maxBytes, row));
        const since = Math.min(RAMP_WINDOW_SECONDS, now - get(previous, Column.givenSeconds, row));
        const most = Math.min(owed, config.rampShare * ram * since);
        if (most < Math.min(owed, at(quantum, row)) || most < PAGE_BYTES) continue;
        cap[row] = most;
        rows.push(row);
      }
      const gave = share(left, rows, cap, vms.weight, quantum, back, false);
      left -= gave;
      for (const row of rows) {
        if (at(back, row) <= 0) continue;
        counterpart[row] = HOST;
        cause[row] = 'refund';
      }
    }
  }

  function lowerToCeilings(): void {
    for (let row = 0; row < count; row++) {
      const excess = at(vms.ramBytes, row) - at(vms.maxBytes, row) - at(targets, row);
      if (excess < PAGE_BYTES || !mayTake(row, NO_BAND)) continue;
      const part = Math.min(excess, ramp(row, false));
      if (part < Math.min(excess, at(quantum, row))) continue;
      out[row] = part;
      counterpart[row] = HOST;
      cause[row] = 'above-ceiling';
    }
  }

  function reasonOf(row: number, because: Cause, other: number): Reason {
    return {
      cause: because,
      hostAvailableBytes: available,
      hostTotalBytes: host.totalBytes,
      reserveBytes: reserve,
      idleBytes: at(idle, row),
      selfGivenBytes: at(selfGiven, row),
      stallPercent: at(vms.stallPercent, row),
      missingBytes: Math.max(0, at(targets, row) - at(actuals, row)),
      counterpart: other,
    };
  }

  function moveTarget(row: number, toBytes: number, reason: Reason): void {
    if ((at(vms.flags, row) & UNASKABLE) !== 0) {
      put(next, Column.expectedBytes, row, toBytes);
      return;
    }
    const fromBytes = at(targets, row);
    actions.push({ kind: 'target', row, fromBytes, toBytes, reason });
  }

  function emitTake(row: number): void {
    const ram = at(vms.ramBytes, row);
    const most = ram - at(vms.minBytes, row);
    const target = at(targets, row);
    // Under a ceiling, what the guest gave by itself is all right.
    const along = cause[row] === 'above-ceiling' ? 0 : at(selfGiven, row);
    const to = Math.floor(Math.min(target + along + at(out, row), most) / PAGE_BYTES) * PAGE_BYTES;
    out[row] = Math.max(0, to - target);
    if (to <= target) return;
    put(next, Column.takenSeconds, row, now);
    put(next, Column.givenBytes, row, Math.max(0, get(next, Column.givenBytes, row) - (to - target)));
    if (get(next, Column.markBytes, row) > 0)
      put(next, Column.markBytes, row, get(next, Column.markBytes, row) + (to - target));
    moveTarget(row, to, reasonOf(row, cause[row] ?? 'host-short', at(counterpart, row)));
  }

  function emitGive(row: number): void {
    const target = at(targets, row);
    const least = Math.max(0, at(vms.ramBytes, row) - at(vms.maxBytes, row));
    const to = Math.ceil(Math.max(target - at(back, row), least) / PAGE_BYTES) * PAGE_BYTES;
    back[row] = Math.max(0, target - to);
    if (to >= target) return;
    const reason = reasonOf(row, cause[row] ?? 'refund', at(counterpart, row));
    // Before the guest may use more.
    if (get(next, Column.rung, row) > 0) setRung(row, 0, reason);
    put(next, Column.givenSeconds, row, now);
    put(next, Column.givenBytes, row, get(next, Column.givenBytes, row) + (target - to));
    moveTarget(row, to, reason);
  }

  function setRung(row: number, rung: number, reason: Reason): void {
    put(next, Column.rung, row, rung);
    put(next, Column.markSeconds, row, now);
    if (rung === KILL_RUNG) actions.push({ kind: 'kill', row, reason });
    else actions.push(limitsOf(row, rung, reason));
  }

  function limitsOf(row: number, rung: number, reason: Reason): LimitAction {
    const target = at(targets, row) + at(out, row) - at(back, row);
    const least = at(vms.ramBytes, row) - target + at(vms.overheadBytes, row);
    const current = at(vms.currentBytes, row);
    const held = Math.max(least, current);
    const highShare = Math.min(rung, HIGH_STEPS) / HIGH_STEPS;
    const up = (bytes: number): number => Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
    return {
      kind: 'limit',
      row,
      rung,
      highBytes: rung === 0 ? null : up(held - (held - least) * highShare),
      // Below what it uses, memory.max would kill, as there is no swap; and at it, for the next page of its VMM.
      maxBytes: rung < MAX_RUNG ? null : up(held + FORCE_ROOM_BYTES + at(vms.ramBytes, row) * QUANTUM_SHARE),
      reason,
    };
  }

  /** One rung up when a grace time is over, one down when the need is. */
  function climb(row: number): void {
    const rung = get(next, Column.rung, row);
    const missing = at(targets, row) + at(out, row) - at(back, row) - at(actuals, row);
    const owes = missing > at(quantum, row);
    if (!owes && rung === 0) {
      put(next, Column.markBytes, row, 0);
      return;
    }
    const movable = (at(vms.flags, row) & MOVABLE) !== 0;
    const needed = movable && (short || unmetBand < at(vms.band, row));
    if (!owes || !needed) {
      if (rung > 0) setRung(row, rung - 1, reasonOf(row, owes ? 'not-needed' : 'yielded', HOST));
      put(next, Column.markSeconds, row, now);
      put(next, Column.markBytes, row, Math.max(0, missing));
      return;
    }
    if (get(next, Column.markBytes, row) === 0) {
      put(next, Column.markSeconds, row, now);
      put(next, Column.markBytes, row, missing);
      return;
    }
    const grace = rung === 0 ? config.willSeconds : config.forceSeconds;
    if (now - get(next, Column.markSeconds, row) < grace) return;
    if (missing <= get(next, Column.markBytes, row) / 2) {
      put(next, Column.markSeconds, row, now);
      put(next, Column.markBytes, row, missing);
      return;
    }
    const reason = reasonOf(row, 'not-yielding', HOST);
    const kill = config.bands[at(vms.band, row)]?.kill === true;
    const forceable = (at(vms.flags, row) & LIMITABLE) !== 0;
    if (forceable && rung < (kill ? KILL_RUNG : MAX_RUNG)) {
      setRung(row, rung + 1, reason);
      return;
    }
    withstand(row, rung);
  }

  /** All that may be done was done: what it has is its own for a while, and others have to yield. */
  function withstand(row: number, rung: number): void {
    const reason = reasonOf(row, 'withstood', HOST);
    if (rung > 0) setRung(row, 0, reason);
    put(next, Column.markBytes, row, 0);
    put(next, Column.refusedUntilSeconds, row, now + REFUSED_GRACES * config.willSeconds);
    moveTarget(row, Math.max(0, at(actuals, row)), reason);
  }
}

function prepare(count: number): Workspace {
  work.reset(count);
  return work;
}

/** A claim as far as it can be true; 0 where nothing is known. */
function bounded(bytes: number, most: number): number {
  return bytes > 0 ? Math.min(bytes, most) : 0;
}
