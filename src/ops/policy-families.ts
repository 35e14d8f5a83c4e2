import { EVENT_NAMES, EVENTS, type EventName } from '../../protocol/control/events.js';
import { formatSize } from '../../protocol/control/size.js';
import { Family, label } from './exposition.js';

/** How often the policy did something, and why. */
export interface PolicyCount {
  readonly action: string;
  readonly reason: string;
  readonly count: number;
}

/** How the policy stands to one VM. */
interface PolicyVm {
  readonly name: string;
  /** Steps of force that the VM is under. */
  readonly force: number;
  /** It withstood all force, so that nothing is asked of it for a while. */
  readonly withstands: boolean;
  /** An operator has it in hand. */
  readonly manual: boolean;
}

/** How a pool of huge pages stands that VMs share. */
interface PolicyPool {
  readonly pageBytes: number;
  readonly short: boolean;
  readonly reserveBytes: number;
  readonly availableBytes: number;
}

export interface PolicyMeasures {
  readonly acted: Iterable<PolicyCount>;
  readonly mode: string;
  readonly paused: boolean;
  /** Whether memory is sought. */
  readonly short: boolean;
  /** Null before the policy looked at the host for the first time. */
  readonly reserveBytes: number | null;
  readonly availableBytes: number | null;
  readonly pools: Iterable<PolicyPool>;
  readonly vms: Iterable<PolicyVm>;
}

const MODES = ['observe', 'auto', 'off'] as const;

/** Each family of the policy, whether or not it has something to say. */
export function policyFamilies(measures: PolicyMeasures | null): Family[] {
  const mode = new Family('balloond_policy_mode', 'gauge', '1 at the mode of the policy, 0 at the others');
  const flags = {
    paused: new Family(
      'balloond_policy_paused',
      'gauge',
      '1 while an operator paused the policy for all VMs',
    ),
    short: new Family(
      'balloond_policy_short',
      'gauge',
      '1 while the policy seeks memory for its reserve; by pool of huge pages where VMs share one',
    ),
  };
  const reserve = new Family(
    'balloond_policy_reserve_bytes',
    'gauge',
    'Memory that the policy keeps available for VMs; by pool of huge pages where VMs share one',
  );
  const available = new Family(
    'balloond_policy_available_bytes',
    'gauge',
    'Memory that is available for VMs; by pool of huge pages where VMs share one',
  );
  const actions = new Family(
    'balloond_policy_actions_total',
    'counter',
    'Actions of the policy, by action and reason',
  );
  const force = new Family(
    'balloond_vm_policy_force',
    'gauge',
    'Steps of force that the VM is under: 0 none, 1 to 3 memory.high, 4 memory.max, 5 killed',
  );
  const withstands = new Family(
    'balloond_vm_policy_withstands',
    'gauge',
    '1 while the policy asks nothing of the VM, because the VM withstood all force',
  );
  const manual = new Family('balloond_vm_policy_manual', 'gauge', '1 while an operator has the VM in hand');
  const families = [mode, flags.paused, flags.short, reserve, available, actions, force, withstands, manual];
  if (measures === null) return families;
  for (const one of MODES) mode.add(label('mode', one), one === measures.mode ? 1 : 0);
  flags.paused.add('', measures.paused ? 1 : 0);
  flags.short.add('', measures.short ? 1 : 0);
  if (measures.reserveBytes !== null) reserve.add('', measures.reserveBytes);
  if (measures.availableBytes !== null) available.add('', measures.availableBytes);
  for (const pool of measures.pools) {
    const own = label('pool', formatSize(pool.pageBytes));
    flags.short.add(own, pool.short ? 1 : 0);
    reserve.add(own, pool.reserveBytes);
    available.add(own, pool.availableBytes);
  }
  for (const { action, reason, count } of measures.acted) {
    actions.add(`${label('action', action)},${label('reason', reason)}`, count);
  }
  for (const vm of measures.vms) {
    const own = label('vm', vm.name);
    force.add(own, vm.force);
    withstands.add(own, vm.withstands ? 1 : 0);
    manual.add(own, vm.manual ? 1 : 0);
  }
  return families;
}

/** How often each event was met that an operator may have to act upon. */
export function eventFamily(counts: ReadonlyMap<EventName, number>): Family {
  const family = new Family(
    'balloond_events_total',
    'counter',
    'Events of the levels warn and error since the daemon started',
  );
  for (const name of EVENT_NAMES) {
    const { level } = EVENTS[name];
    if (level === 'warn' || level === 'error') family.add(label('event', name), counts.get(name) ?? 0);
  }
  return family;
}
