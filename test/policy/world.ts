// A host whose guests do what guests do: they use what they want as far as they may, and follow their target.
import {
  LIMITABLE,
  MOVABLE,
  TAKEABLE,
  vmTable,
  type PolicyConfig,
  type VmTable,
} from '../../src/policy/inputs.js';
import { plan, type Plan } from '../../src/policy/plan.js';
import { emptyState, type PolicyState } from '../../src/policy/state.js';

export const MIB = 2 ** 20;

export interface WorldVm {
  readonly band: number;
  readonly ramBytes: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly weight: number;
  /** What its workload wants to use. */
  wantsBytes: number;
  /** Does not inflate, and touches what it may. */
  readonly refuses: boolean;
  readonly limitable: boolean;
}

export const CONFIG: PolicyConfig = {
  bands: ['gold', 'silver', 'bronze'].map((name) => ({ name, kill: false })),
  partOfHost: false,
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
  /** Target changes, by row. */
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
      this.table.flags[row] = MOVABLE | TAKEABLE | (vm.limitable ? LIMITABLE : 0);
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
    return (this.table.ramBytes[row] ?? 0) - (this.table.targetBytes[row] ?? 0);
  }

  /** One second: what was seen is planned for, and done. */
  step(seconds = 1): Plan {
    this.now += seconds;
    const planned = plan(this.host(), this.table, this.config, this.state);
    for (const action of planned.actions) {
      if (action.kind !== 'target') continue;
      this.table.targetBytes[action.row] = action.toBytes;
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
      table.availableBytes[row] = usable - used;
      table.freeBytes[row] = usable - used;
      table.currentBytes[row] = Math.min(usable, Math.max(used, table.currentBytes[row] ?? 0));
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
    wantsBytes: ramBytes / 2,
    refuses: false,
    limitable: true,
    ...change,
  };
}
