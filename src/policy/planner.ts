import type { Action } from './action.js';
import type { HostReading, PolicyConfig, VmTable } from './inputs.js';
import type { PolicyState } from './state.js';

/** The decision of a policy at one tick. */
export interface Plan {
  /** The actions, in the order in which they are to be done. */
  readonly actions: readonly Action[];
  /** The memory of the policy, once the actions are done. */
  readonly next: PolicyState;
  /** The part of the reserve that would be missing if the VMs gave all that may be taken from them; absent: none. */
  readonly lackingBytes?: number;
  /** The rows of VMs that memory would be taken from if they had said lately how much they have available. */
  readonly askFirst?: readonly number[];
}

/**
 * A policy. The daemon and the simulator call plan() at each tick and do what it returns. A plan follows from the four
 * arguments alone: plan() asks no clock, does no I/O and changes no argument. One planner serves one host at a time.
 */
export interface Planner {
  /** The plan follows from the sizes of the VMs alone, so that VMs may have their targets before they start. */
  readonly fixed?: boolean;
  plan(host: HostReading, vms: VmTable, config: PolicyConfig, previous: PolicyState): Plan;
}
