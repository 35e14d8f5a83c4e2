/** The facts that a plan goes by: those of each VM, and what follows from all of them for the host. */
import { at, type Columns } from './columns.js';
import {
  FIRM,
  MOVABLE,
  SELF_SIZED,
  SIZED,
  UNASKABLE,
  type HostReading,
  type PolicyConfig,
  type VmTable,
} from './inputs.js';
import { Column, get, type PolicyState } from './state.js';
import { firmHeadroomBytes, headroomBytes } from './working-set-reading.js';

export const PAGE_BYTES = 4096;
/** The smallest change of a target, as a share of RAM. */
export const QUANTUM_SHARE = 1 / 64;
/** Below LOW_SHARE of the memory that it may use, a guest is short, and gets up to HEADROOM_SHARE; idle memory is taken down to that. */
const LOW_SHARE = 0.04;
export const HEADROOM_SHARE = 0.1;
/** A guest that stalls gets so much of its RAM at once. */
const RELIEF_SHARE = 0.2;
const STALL_PERCENT = 5;
const HOST_PRESSURE_PERCENT = 20;
/** The host is filled up to a quarter more than the reserve, and gives back from another quarter on. */
export const GOAL_MARGIN = 0.25;
const REFUND_MARGIN = 0.25;
/** Page cache balloons grow where the host has less than this share of its memory beyond its goal, and shrink from twice as much on. */
const CLOSE_SHARE = 0.1;

/** The facts of one tick. Its columns hold those of each VM. */
export class Facts {
  readonly reserveBytes: number;
  readonly #goalBytes: number;
  /** The memory that guests are about to yield by will, and the memory that they were given and have yet to touch. */
  #incomingBytes = 0;
  #outstandingBytes = 0;
  /** The wants of all VMs of each band. */
  readonly bandWants: number[];
  /** Some VM owes memory, or is under force. */
  #owing = false;
  /** Some VM has a target that could be lowered. */
  #ballooned = false;
  /** Some VM has more than its ceiling. */
  overCeiling = false;
  /** The VMs whose page cache balloons the policy sets limits for. */
  readonly selfSized: number[] = [];

  constructor(
    readonly host: HostReading,
    readonly vms: VmTable,
    readonly config: PolicyConfig,
    readonly previous: PolicyState,
    readonly columns: Columns,
  ) {
    this.reserveBytes = config.reserveShare * host.totalBytes;
    this.#goalBytes = this.reserveBytes * (1 + GOAL_MARGIN);
    this.bandWants = config.bands.map(() => 0);
    columns.reset(vms.count);
    for (let row = 0; row < vms.count; row++) {
      this.#size(row);
      this.#addOnItsWay(row);
      this.#need(row);
    }
  }

  /** The host has less available than its reserve, or has not come back to its goal since. */
  get short(): boolean {
    const { availableBytes, pressurePercent } = this.host;
    if (availableBytes < this.reserveBytes) return true;
    return (
      availableBytes < this.#goalBytes && (this.previous.short || pressurePercent >= HOST_PRESSURE_PERCENT)
    );
  }

  /** The part of half of the reserve that is gone: 0 while the host has its reserve, 1 when half of it or more is gone. */
  get urgency(): number {
    const goneBytes = this.reserveBytes - this.host.availableBytes;
    return goneBytes <= 0 ? 0 : Math.min(1, (2 * goneBytes) / this.reserveBytes);
  }

  /** Half of the reserve is gone. */
  get critical(): boolean {
    return this.host.availableBytes < this.reserveBytes / 2;
  }

  /** The memory that the host has beyond its goal, counting memory that is on its way; negative: it has to be taken. */
  get spareBytes(): number {
    return this.unclaimedBytes + this.#incomingBytes - this.#goalBytes;
  }

  /** The memory that may be given at all: the host has it now, down to half of the reserve. */
  get givableBytes(): number {
    return this.unclaimedBytes - this.reserveBytes / 2;
  }

  /** The memory that a guest may be given which would end programs otherwise: also memory of the host that is not for VMs. */
  get savingBytes(): number {
    const beyond = (this.host.beyondBytes ?? 0) - this.reserveBytes;
    return this.givableBytes + Math.max(0, beyond);
  }

  /** How far the host is beyond its goal before it gives back by itself. */
  get refundMarginBytes(): number {
    return REFUND_MARGIN * this.reserveBytes;
  }

  /** The host has memory left over, and some VM could have it. */
  get refundable(): boolean {
    return this.#ballooned && !this.short && this.spareBytes > this.refundMarginBytes;
  }

  /** No rule of the policy applies. */
  get quiet(): boolean {
    const wanting = this.bandWants.some((bytes) => bytes > 0);
    const moves = this.#owing || this.refundable || this.overCeiling || this.#limitsMove;
    return !this.short && !wanting && !moves;
  }

  /** The host is short, or guests are short of more than the host has beyond its goal. */
  get tight(): boolean {
    return this.short || this.bandWants.reduce((sum, bytes) => sum + bytes, 0) > this.spareBytes;
  }

  /** The memory that page cache balloons should bring the host before it is short. */
  get cacheLackBytes(): number {
    return CLOSE_SHARE * this.host.totalBytes - this.spareBytes;
  }

  /** The memory that the host has for page cache which page cache balloons hold back. */
  get cacheRoomBytes(): number {
    return this.unclaimedBytes - this.#goalBytes - 2 * CLOSE_SHARE * this.host.totalBytes;
  }

  /** Some page cache balloon has another limit than it should have. */
  get #limitsMove(): boolean {
    if (this.selfSized.length === 0) return false;
    const grow = this.cacheLackBytes > 0;
    const shrink = this.cacheRoomBytes > 0;
    return this.selfSized.some((row) => {
      const limit = at(this.vms.cacheLimitBytes, row);
      const most = this.mostCached(row);
      return limit > most || (grow && limit < most) || (shrink && limit > 0);
    });
  }

  has(row: number, flags: number): boolean {
    return (at(this.vms.flags, row) & flags) === flags;
  }

  /** The most that the page cache balloon may ever hold: all memory above the floor, in pages. */
  mostCached(row: number): number {
    const { ramBytes, minBytes } = this.vms;
    return Math.floor((at(ramBytes, row) - at(minBytes, row)) / PAGE_BYTES) * PAGE_BYTES;
  }

  /** The memory of the host that the guest may be about to give to its page cache balloon under this limit; none where half of the reserve is gone. */
  givesByItself(row: number, limitBytes: number): number {
    const { spared, untouched } = this.columns;
    if (this.critical) return 0;
    const more = limitBytes - at(this.vms.cachedBytes, row);
    return Math.max(0, Math.min(more, at(spared, row) - at(untouched, row)));
  }

  /** The target under which the VM has no more than its ceiling. */
  leastTarget(row: number): number {
    return Math.max(0, at(this.vms.ramBytes, row) - at(this.vms.maxBytes, row));
  }

  /** The memory that may be taken from it, down to its floor. */
  mostTarget(row: number): number {
    return at(this.vms.ramBytes, row) - at(this.vms.minBytes, row);
  }

  /** How much larger its steps and grace times are than those of a balloon that the daemon serves. */
  pace(row: number): number {
    return 1 + at(this.vms.slowness, row);
  }

  /** The memory that is available, without memory that VMs were given and have yet to touch. */
  get unclaimedBytes(): number {
    return this.host.availableBytes - this.#outstandingBytes;
  }

  /** How much the VM has, may use and could do without, as far as the host can see it. */
  #size(row: number): void {
    const { vms, columns } = this;
    const ram = at(vms.ramBytes, row);
    const cached = at(vms.cachedBytes, row);
    const inBalloon = at(vms.actualBytes, row);
    const onHost = Math.min(at(vms.currentBytes, row) - at(vms.overheadBytes, row), ram - inBalloon - cached);
    const askable = !this.has(row, UNASKABLE);
    const target = askable
      ? at(vms.targetBytes, row)
      : Math.min(get(this.previous, Column.expectedBytes, row), this.mostCached(row));
    // A VM that cannot be asked has yielded the memory that is not on the host.
    const actual = askable ? inBalloon : bounded(ram - onHost, target);
    const usable = Math.max(0, ram - actual);
    const owed = Math.max(0, target - actual);
    // The host sees by itself which memory a guest never touched, or gave up; that is idle whatever the guest says.
    const untouched = bounded(usable - onHost, usable);
    const spared = Math.max(bounded(at(vms.availableBytes, row), usable), untouched);
    const absent = Math.max(0, untouched - owed);
    const shed = this.has(row, SELF_SIZED) ? absent : 0;
    columns.quantum[row] = ram * QUANTUM_SHARE * this.pace(row);
    columns.target[row] = target;
    columns.actual[row] = actual;
    columns.usable[row] = usable;
    columns.untouched[row] = untouched;
    columns.spared[row] = spared;
    columns.shed[row] = shed;
    columns.idle[row] = Math.max(0, spared - owed - shed);
    columns.hollow[row] = absent - shed;
  }

  /** Adds the memory that the guest is about to yield, and the memory that it has yet to touch. */
  #addOnItsWay(row: number): void {
    const { vms, columns, previous, config, host } = this;
    const missing = at(columns.target, row) - at(columns.actual, row);
    const untouched = at(columns.untouched, row);
    const rung = get(previous, Column.rung, row);
    const mark = get(previous, Column.markBytes, row);
    // Also a VM that has yielded in the meantime: its grace time is over, and the next one begins anew.
    if (mark > 0) this.#owing = true;
    if (missing > at(columns.quantum, row) || rung > 0) {
      this.#owing = true;
      const waited = host.nowSeconds - get(previous, Column.markSeconds, row);
      const yielding = rung === 0 && waited < config.willSeconds * this.pace(row);
      if (missing > 0 && (yielding || mark === 0)) this.#incomingBytes += Math.max(0, missing - untouched);
    }
    const waits = host.nowSeconds - get(previous, Column.letSeconds, row) < config.willSeconds;
    if (waits && this.has(row, SELF_SIZED))
      this.#incomingBytes += this.givesByItself(row, at(vms.cacheLimitBytes, row));
    const given = get(previous, Column.givenBytes, row);
    if (given <= 0 || this.has(row, UNASKABLE)) return;
    const unseen = Number.isNaN(at(vms.currentBytes, row))
      ? bounded(at(vms.freeBytes, row), at(columns.usable, row))
      : untouched - bounded(at(vms.cachedBytes, row), untouched);
    this.#outstandingBytes += Math.min(given, unseen + Math.max(0, -missing));
  }

  /** Whether the guest is short, and of how much. */
  #need(row: number): void {
    const { vms, columns } = this;
    columns.want[row] = 0;
    columns.pressed[row] = 0;
    if (!this.has(row, MOVABLE)) return;
    if (this.has(row, SELF_SIZED)) this.selfSized.push(row);
    const target = at(columns.target, row);
    const least = this.leastTarget(row);
    if (target < least) this.overCeiling = true;
    if (target <= least) return;
    if (!this.has(row, SIZED)) this.#ballooned = true;
    const underFloor = target - this.mostTarget(row);
    const stalls = this.#stalls(row);
    if (!stalls && !this.#isLow(row) && underFloor < PAGE_BYTES) return;
    columns.pressed[row] = 1;
    // Nothing was taken from a VM that cannot be asked, so there is nothing to give.
    if (this.has(row, UNASKABLE)) return;
    // A VM that follows its working set is given what it needs (working-set.ts) while the host has memory left over.
    if (this.has(row, SIZED) && this.host.availableBytes > this.#goalBytes && underFloor < PAGE_BYTES) return;
    const claims = at(vms.availableBytes, row) >= 0;
    const shortage = claims ? this.#leftover(row, HEADROOM_SHARE) - at(columns.spared, row) : 0;
    const relief = stalls ? RELIEF_SHARE * at(vms.ramBytes, row) : 0;
    const coming = Math.max(0, at(columns.actual, row) - target);
    const wish = Math.max(shortage, relief, underFloor) - coming;
    if (wish <= 0) return;
    const wanted = Math.min(target - least, Math.max(wish, at(columns.quantum, row)));
    columns.want[row] = wanted;
    const band = at(vms.band, row);
    this.bandWants[band] = (this.bandWants[band] ?? 0) + wanted;
  }

  /** A guest that reclaims its page cache waits for memory as well; one that has some to spare is not short of it. */
  #stalls(row: number): boolean {
    const { vms, columns, previous } = this;
    if (get(previous, Column.rung, row) !== 0 || at(vms.stallPercent, row) < STALL_PERCENT) return false;
    const spared = at(vms.availableBytes, row) >= 0 ? at(columns.spared, row) : 0;
    return Math.max(at(columns.untouched, row), spared) < this.#leftover(row, HEADROOM_SHARE);
  }

  /** The share of its memory that a guest should have left; little is enough for one whose balloon follows its working set. */
  #leftover(row: number, share: number): number {
    const bytes = share * at(this.columns.usable, row);
    const ram = at(this.vms.ramBytes, row);
    if (this.has(row, FIRM)) return Math.max(bytes, (share / HEADROOM_SHARE) * firmHeadroomBytes(ram));
    if (!this.has(row, SIZED)) return bytes;
    return Math.min(bytes, (share / HEADROOM_SHARE) * headroomBytes(ram));
  }

  #isLow(row: number): boolean {
    const { vms, columns, previous } = this;
    return (
      get(previous, Column.rung, row) === 0 &&
      at(vms.availableBytes, row) >= 0 &&
      at(columns.spared, row) < this.#leftover(row, LOW_SHARE) &&
      at(columns.target, row) - at(columns.actual, row) <= at(columns.quantum, row)
    );
  }
}

/** The memory that is available where page cache balloons begin to grow, and where they begin to shrink. */
export function cacheLines(
  reserveBytes: number,
  totalBytes: number,
): { readonly growBelowBytes: number; readonly shrinkAboveBytes: number } {
  const goal = reserveBytes * (1 + GOAL_MARGIN);
  return {
    growBelowBytes: goal + CLOSE_SHARE * totalBytes,
    shrinkAboveBytes: goal + 2 * CLOSE_SHARE * totalBytes,
  };
}

/** A claim as far as it can be true; 0 where nothing is known. */
function bounded(bytes: number, most: number): number {
  return bytes > 0 ? Math.min(bytes, most) : 0;
}
