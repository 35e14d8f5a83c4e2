/** The policies that the simulator runs, and one of them at work on one host. */
import type { Action } from '../policy/action.js';
import type { PolicyConfig } from '../policy/inputs.js';
import { BandPlanner } from '../policy/plan.js';
import type { Planner } from '../policy/planner.js';
import { emptyState, type PolicyState } from '../policy/state.js';
import { BASELINES } from './baselines.js';
import type { HostModel } from './host-model.js';

/** The policies by their names: the first is balloond's. */
const PLANNERS = {
  balloond: () => new BandPlanner(),
  ...BASELINES,
} as const satisfies Record<string, () => Planner>;

export type PolicyName = keyof typeof PLANNERS;
export const POLICY_NAMES = Object.keys(PLANNERS) as PolicyName[];

/** A policy that governs the VMs of one host: the simulator's part for the daemon's governor. */
export class SimulatedGovernor {
  readonly #planner: Planner;
  readonly #host: HostModel;
  readonly #config: PolicyConfig;
  readonly #seen: (action: Action) => void;
  #state: PolicyState;

  /** `seen` is called for each action. */
  constructor(
    policy: PolicyName,
    host: HostModel,
    config: PolicyConfig,
    seen: (action: Action) => void = () => undefined,
  ) {
    this.#planner = PLANNERS[policy]();
    this.#host = host;
    this.#config = config;
    this.#seen = seen;
    this.#state = emptyState(host.table.count);
    if (this.#planner.fixed === true) this.tick(0);
  }

  /** Lets the policy look at the host and does what it decides; returns how many targets changed. */
  tick(nowSeconds: number): number {
    const { table, totalBytes, availableBytes } = this.#host;
    const reading = { nowSeconds, totalBytes, availableBytes, pressurePercent: 0 };
    const { actions, next } = this.#planner.plan(reading, table, this.#config, this.#state);
    this.#state = next;
    let changed = 0;
    for (const action of actions) {
      this.#seen(action);
      if (action.kind === 'cache-limit') table.cacheLimitBytes[action.row] = action.toBytes;
      if (action.kind !== 'target') continue;
      table.targetBytes[action.row] = action.toBytes;
      changed++;
    }
    return changed;
  }
}
