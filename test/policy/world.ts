// A host whose guests do what guests do: they use what they want as far as they may, and follow their target.
import {
  FIRM,
  LIMITABLE,
  MOVABLE,
  SELF_SIZED,
  SIZED,
  TAKEABLE,
  UNASKABLE,
  vmTable,
  type PolicyConfig,
  type VmTable,
} from '../../src/policy/inputs.js';
import { BandPlanner } from '../../src/policy/plan.js';
import type { Plan } from '../../src/policy/planner.js';
import { Column, emptyState, get, type PolicyState } from '../../src/policy/state.js';

export const MIB = 2 ** 20;

/** One for all hosts: a plan leaves nothing behind in it. */
const PLANNER = new BandPlanner();
export const plan = PLANNER.plan.bind(PLANNER);

export interface WorldVm {
  readonly band: number;
  readonly ramBytes: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly weight: number;
  /** What it has used before now, and page cache fills. */
  readonly touchedBytes: number;
  /** What its workload wants to use. */
  wantsBytes: number;
  /** Does not inflate, and touches what it may. */
  readonly refuses: boolean;
  readonly limitable: boolean;
  /** A page cache balloon, beside the other one or alone: its guest holds there what it can spare, unless it refuses. */
  readonly cache: 'none' | 'beside' | 'alone';
  /** Of a kind that is moved and waited for by so many times more. */
  readonly slowness?: number;
  /** Its balloon follows the working set of its guest, by another law than the plan. */
  readonly sized?: boolean;
  /** Its driver gives nothing back when the guest runs out of memory. */
  readonly firm?: boolean;
}

export const CONFIG: PolicyConfig = {
  bands: ['gold', 'silver', 'bronze'].map((name) => ({ name, kill: false })),
  stock: 'host',
  reserveShare: 0.1,
  idleTax: 0.75,
  rampShare: 0.01,
  urgentRampShare: 0.2,
  willSeconds: 10,
  forceSeconds: 5,
  holdSeconds: 20,
};

export class World {
  readonly table: VmTable;
  state: PolicyState;
  now = 0;
  /** Changes of target or cache limit, by row. */
  readonly moves: number[];

  constructor(
    readonly totalBytes: number,
    readonly vms: WorldVm[],
    readonly config: PolicyConfig = CONFIG,
  ) {
    this.table = vmTable(vms.length);
    this.state = emptyState(vms.length);
    this.moves = vms.map(() => 0);
    vms.forEach((vm, row) => {
      this.table.band[row] = vm.band;
      this.table.flags[row] =
        MOVABLE |
        TAKEABLE |
        (vm.limitable ? LIMITABLE : 0) |
        (vm.sized === true ? SIZED : 0) |
        (vm.firm === true ? FIRM : 0) |
        (vm.cache === 'none' ? 0 : SELF_SIZED) |
        (vm.cache === 'alone' ? UNASKABLE : 0);
      this.table.currentBytes[row] = vm.touchedBytes;
      this.table.slowness[row] = vm.slowness ?? 0;
      for (const name of ['ramBytes', 'minBytes', 'maxBytes', 'weight'] as const)
        this.table[name][row] = vm[name];
    });
    this.#work();
  }

  get availableBytes(): number {
    return this.totalBytes - this.table.currentBytes.reduce((sum, bytes) => sum + bytes, 0);
  }

  stalls(row: number): boolean {
    return (this.table.stallPercent[row] ?? 0) > 0;
  }

  grant(row: number): number {
    return (this.table.ramBytes[row] ?? 0) - this.target(row);
  }

  target(row: number): number {
    const alone = this.vms[row]?.cache === 'alone';
    return alone ? get(this.state, Column.expectedBytes, row) : (this.table.targetBytes[row] ?? 0);
  }

  owes(row: number): boolean {
    const { ramBytes, currentBytes, actualBytes } = this.table;
    const alone = this.vms[row]?.cache === 'alone';
    return (
      this.target(row) > (alone ? (ramBytes[row] ?? 0) - (currentBytes[row] ?? 0) : (actualBytes[row] ?? 0))
    );
  }

  /** One second: what was seen is planned for, and done. */
  step(seconds = 1): Plan {
    this.now += seconds;
    const planned = plan(this.host(), this.table, this.config, this.state);
    for (const action of planned.actions) {
      if (action.kind === 'target') this.table.targetBytes[action.row] = action.toBytes;
      else if (action.kind === 'cache-limit') this.table.cacheLimitBytes[action.row] = action.toBytes;
      else continue;
      this.moves[action.row] = (this.moves[action.row] ?? 0) + 1;
    }
    this.state = planned.next;
    this.#work();
    return planned;
  }

  host(): { nowSeconds: number; totalBytes: number; availableBytes: number; pressurePercent: number } {
    const { totalBytes, availableBytes } = this;
    return { nowSeconds: this.now, totalBytes, availableBytes, pressurePercent: NaN };
  }

  #work(): void {
    const { table } = this;
    this.vms.forEach((vm, row) => {
      const target = table.targetBytes[row] ?? 0;
      if (!vm.refuses || target < (table.actualBytes[row] ?? 0)) table.actualBytes[row] = target;
      const usable = vm.ramBytes - (table.actualBytes[row] ?? 0);
      const used = Math.min(usable, vm.wantsBytes);
      table.stallPercent[row] = vm.wantsBytes > usable ? 30 : 0;
      const limit = vm.cache === 'none' || vm.refuses ? 0 : (table.cacheLimitBytes[row] ?? 0);
      const cached = Math.min(limit, usable - used);
      table.cachedBytes[row] = cached;
      // Linux counts the balloon as page cache that could make way; the device itself tells nothing of the kind.
      table.availableBytes[row] = vm.cache === 'alone' ? NaN : usable - used;
      table.steadyBytes[row] = table.availableBytes[row] ?? NaN;
      table.freeBytes[row] = usable - used - cached;
      table.currentBytes[row] = Math.min(usable - cached, Math.max(used, table.currentBytes[row] ?? 0));
    });
  }
}

export function vm(change: Partial<WorldVm> = {}): WorldVm {
  const ramBytes = change.ramBytes ?? 4096 * MIB;
  return {
    band: 2,
    ramBytes,
    minBytes: ramBytes / 8,
    maxBytes: ramBytes,
    weight: 1,
    touchedBytes: 0,
    wantsBytes: ramBytes / 2,
    refuses: false,
    limitable: true,
    cache: 'none',
    ...change,
  };
}
