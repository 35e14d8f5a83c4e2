/**
 * The policies that balloond's is compared with: the others' rules and constants, written anew from their documentation
 * and source, on the same floors, ceilings and shares. They remember nothing, and give no reason but the direction.
 */
import { HOST, type Action } from '../policy/action.js';
import type { HostReading, PolicyConfig, VmTable } from '../policy/inputs.js';
import type { Plan, Planner } from '../policy/planner.js';
import type { PolicyState } from '../policy/state.js';

const MIB = 2 ** 20;

/** A policy by the targets that it wants: `targets` holds the present ones, and the wanted ones afterwards. */
type Rules = (targets: Float64Array, host: HostReading, vms: VmTable, config: PolicyConfig) => void;

class RulesPlanner implements Planner {
  readonly fixed: boolean;
  readonly #rules: Rules;

  constructor(rules: Rules, { fixed = false } = {}) {
    this.#rules = rules;
    this.fixed = fixed;
  }

  plan(host: HostReading, vms: VmTable, config: PolicyConfig, previous: PolicyState): Plan {
    const targets = vms.targetBytes.slice();
    this.#rules(targets, host, vms, config);
    const actions: Action[] = [];
    for (let row = 0; row < vms.count; row++) {
      const fromBytes = vms.targetBytes[row] ?? 0;
      const toBytes = targets[row] ?? 0;
      if (toBytes === fromBytes) continue;
      const reason = {
        cause: toBytes > fromBytes ? ('host-short' as const) : ('refund' as const),
        hostAvailableBytes: host.availableBytes,
        hostTotalBytes: host.totalBytes,
        reserveBytes: config.reserveShare * host.totalBytes,
        idleBytes: vms.availableBytes[row] ?? 0,
        shedBytes: 0,
        stallPercent: vms.stallPercent[row] ?? 0,
        missingBytes: 0,
        counterpart: HOST,
      };
      actions.push({ kind: 'target', row, fromBytes, toBytes, reason });
    }
    return { actions, next: previous };
  }
}

/** Every VM has the same part of its RAM for ever, so that all together fit. */
function staticLimits(targets: Float64Array, host: HostReading, vms: VmTable, config: PolicyConfig): void {
  const all = vms.ramBytes.reduce((sum, bytes) => sum + bytes, 0);
  const part = Math.min(1, ((1 - config.reserveShare) * host.totalBytes) / all);
  for (let row = 0; row < vms.count; row++) targets[row] = (1 - part) * (vms.ramBytes[row] ?? 0);
}

/** Proxmox VE: the most that a guest changes by in a cycle of 10 s, and the distance within which the host is left alone. */
const PROXMOX = { target: 0.8, changeBytes: 100 * MIB, deadBytes: 10 * MIB, pressedShare: 0.25 } as const;

/**
 * Proxmox VE, `auto_balloning` of pvestatd and `compute_alg1` of PVE::AutoBalloon (pve-manager 9): towards 80 % of the
 * host in use. When the host grows guests, those with at most a quarter of their minimum free go first, when it shrinks
 * them the others; all of them where that moves nothing.
 */
function proxmox(targets: Float64Array, { totalBytes, availableBytes }: HostReading, vms: VmTable): void {
  const goal = PROXMOX.target * totalBytes - (totalBytes - availableBytes);
  if (Math.abs(goal) < PROXMOX.deadBytes) return;
  const all = Array.from({ length: vms.count }, (_, row) => row);
  const pressed = (row: number): boolean =>
    (vms.freeBytes[row] ?? 0) <= PROXMOX.pressedShare * (vms.minBytes[row] ?? 0);
  const had = Float64Array.from(all, (row) => (vms.ramBytes[row] ?? 0) - (vms.targetBytes[row] ?? 0));
  const sizes = had.slice();
  const first = all.filter((row) => pressed(row) === goal > 0);
  if (apportion(vms, first, goal, had, sizes) === goal) apportion(vms, all, goal, had, sizes);
  for (const row of all) {
    if (Math.abs((sizes[row] ?? 0) - (had[row] ?? 0)) < 1) continue;
    targets[row] = (vms.ramBytes[row] ?? 0) - (sizes[row] ?? 0);
  }
}

/** Divides `bytes`, and the memory that guests have above their minimum, by shares anew; returns the rest. */
function apportion(
  vms: VmTable,
  rows: readonly number[],
  bytes: number,
  had: Float64Array,
  sizes: Float64Array,
): number {
  let rest = bytes;
  let open = rows;
  for (let moves = true; moves && Math.abs(rest) >= 1;) {
    let above = rest;
    let shares = 0;
    for (const row of open) {
      above += (sizes[row] ?? 0) - (vms.minBytes[row] ?? 0);
      shares += vms.weight[row] ?? 0;
    }
    moves = false;
    const still: number[] = [];
    for (const row of open) {
      const min = vms.minBytes[row] ?? 0;
      const due = min + (above * (vms.weight[row] ?? 0)) / shares;
      const wanted = Math.max(min, Math.min(due, vms.maxBytes[row] ?? 0));
      const was = had[row] ?? 0;
      if (wanted === was || (wanted > was && bytes < 0)) continue;
      still.push(row);
      const size = Math.max(was - PROXMOX.changeBytes, Math.min(wanted, was + PROXMOX.changeBytes));
      const change = size - (sizes[row] ?? 0);
      if (Math.abs(change) < 1) continue;
      sizes[row] = size;
      rest -= change;
      moves = true;
    }
    open = still;
  }
  return rest;
}

/** The constants of MOM's doc/balloon.rules, by their names there. */
const MOM = {
  pressureThreshold: 0.2,
  pressureCritical: 0.05,
  minGuestFreePercent: 0.2,
  maxBalloonChangePercent: 0.05,
  minBalloonChangePercent: 0.0025,
} as const;

/**
 * The Memory Overcommitment Manager (oVirt), doc/balloon.rules: with less than 20 % of the host free, all guests shrink by
 * at most 5 % a cycle, down to the memory that they use and a part of it free that falls with the host's free part, below
 * nothing when that is 5 % or less; otherwise all grow. Memory that a guest could do without counts as free here, page
 * cache included, which favours these rules: guests without an agent say which memory is free and no more.
 */
function mom(targets: Float64Array, host: HostReading, vms: VmTable): void {
  const hostFree = host.availableBytes / host.totalBytes;
  const guestFree =
    hostFree <= MOM.pressureCritical
      ? hostFree - 0.05
      : MOM.minGuestFreePercent * (hostFree / MOM.pressureThreshold);
  for (let row = 0; row < vms.count; row++) {
    const ram = vms.ramBytes[row] ?? 0;
    const most = vms.maxBytes[row] ?? ram;
    const has = ram - (vms.targetBytes[row] ?? 0);
    const used = has - Math.max(0, Math.min(has, vms.availableBytes[row] ?? 0));
    const shrunk = Math.max((1 - MOM.maxBalloonChangePercent) * has, used + guestFree * has);
    const grown = Math.max((1 + MOM.maxBalloonChangePercent) * has, used + MOM.minGuestFreePercent * most);
    const wanted =
      hostFree < MOM.pressureThreshold
        ? Math.min(has, Math.max(shrunk, vms.minBytes[row] ?? 0))
        : Math.min(most, grown);
    if (Math.abs(wanted - has) <= MOM.minBalloonChangePercent * has) continue;
    targets[row] = ram - wanted;
  }
}

/** The planners to compare with, by their names. */
export const BASELINES = {
  'static limits': () => new RulesPlanner(staticLimits, { fixed: true }),
  'Proxmox-style 80 % target': () => new RulesPlanner(proxmox),
  'MOM-style host-free rules': () => new RulesPlanner(mom),
} as const satisfies Record<string, () => Planner>;
