/**
 * The policy of this project and what it is compared with: the others' rules and constants, written anew from their
 * documentation and source, on the same floors, ceilings and shares.
 */
import type { Action } from '../policy/action.js';
import type { PolicyConfig } from '../policy/inputs.js';
import { plan } from '../policy/plan.js';
import { emptyState, type PolicyState } from '../policy/state.js';
import type { HostModel } from './host-model.js';

/** Decides once a step; returns how many targets it changed. */
export type Decide = (nowSeconds: number) => number;
export type Policy = (host: HostModel, config: PolicyConfig, seen?: (action: Action) => void) => Decide;

const MIB = 2 ** 20;

const balloond: Policy = (host, config, seen) => {
  let state: PolicyState = emptyState(host.table.count);
  return (nowSeconds) => {
    const { totalBytes, availableBytes } = host;
    const reading = { nowSeconds, totalBytes, availableBytes, pressurePercent: 0 };
    const { actions, next } = plan(reading, host.table, config, state);
    state = next;
    let changed = 0;
    for (const action of actions) {
      seen?.(action);
      if (action.kind !== 'target') continue;
      host.table.targetBytes[action.row] = action.toBytes;
      changed++;
    }
    return changed;
  };
};

/** Everybody gets the same part of its RAM for ever, so that all together fit. */
const staticLimits: Policy = (host, config) => {
  const { table, totalBytes } = host;
  const all = table.ramBytes.reduce((sum, bytes) => sum + bytes, 0);
  const part = Math.min(1, ((1 - config.reserveShare) * totalBytes) / all);
  for (let row = 0; row < table.count; row++)
    table.targetBytes[row] = (1 - part) * (table.ramBytes[row] ?? 0);
  return () => 0;
};

/** Proxmox VE: what a guest may change by in a cycle of 10 s, and below what the host's distance is left alone. */
const PROXMOX = { target: 0.8, changeBytes: 100 * MIB, deadBytes: 10 * MIB, pressedShare: 0.25 } as const;

/**
 * Proxmox VE, `auto_balloning` of pvestatd and `compute_alg1` of PVE::AutoBalloon (pve-manager 9): towards 80 % of the
 * host in use. When it grows guests, those with at most a quarter of their minimum free go first, when it shrinks them
 * the others; all of them where that moves nothing.
 */
function proxmoxCycle({ table, totalBytes, availableBytes }: HostModel): number {
  const goal = PROXMOX.target * totalBytes - (totalBytes - availableBytes);
  if (Math.abs(goal) < PROXMOX.deadBytes) return 0;
  const all = Array.from({ length: table.count }, (_, row) => row);
  const pressed = (row: number): boolean =>
    (table.freeBytes[row] ?? 0) <= PROXMOX.pressedShare * (table.minBytes[row] ?? 0);
  const had = Float64Array.from(all, (row) => (table.ramBytes[row] ?? 0) - (table.targetBytes[row] ?? 0));
  const sizes = had.slice();
  const first = all.filter((row) => pressed(row) === goal > 0);
  if (apportion(table, first, goal, had, sizes) === goal) apportion(table, all, goal, had, sizes);
  let changed = 0;
  for (const row of all) {
    if (Math.abs((sizes[row] ?? 0) - (had[row] ?? 0)) < 1) continue;
    table.targetBytes[row] = (table.ramBytes[row] ?? 0) - (sizes[row] ?? 0);
    changed++;
  }
  return changed;
}

/** What guests have above their minimum, and `bytes`, are divided by shares anew; returns what is left over. */
function apportion(
  table: HostModel['table'],
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
      above += (sizes[row] ?? 0) - (table.minBytes[row] ?? 0);
      shares += table.weight[row] ?? 0;
    }
    moves = false;
    const still: number[] = [];
    for (const row of open) {
      const min = table.minBytes[row] ?? 0;
      const due = min + (above * (table.weight[row] ?? 0)) / shares;
      const wanted = Math.max(min, Math.min(due, table.maxBytes[row] ?? 0));
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
 * at most 5 % a cycle, down to what they use and a part of it free that falls with what the host has, below nothing
 * when that is 5 % or less; else all grow. What a guest could do without counts as free here, page cache included,
 * which favours these rules: guests without an agent say what is free and no more.
 */
const mom: Policy = (host) => () => {
  const { table } = host;
  const hostFree = host.availableBytes / host.totalBytes;
  const guestFree =
    hostFree <= MOM.pressureCritical
      ? hostFree - 0.05
      : MOM.minGuestFreePercent * (hostFree / MOM.pressureThreshold);
  let changed = 0;
  for (let row = 0; row < table.count; row++) {
    const ram = table.ramBytes[row] ?? 0;
    const most = table.maxBytes[row] ?? ram;
    const has = ram - (table.targetBytes[row] ?? 0);
    const used = has - Math.max(0, Math.min(has, table.availableBytes[row] ?? 0));
    const shrunk = Math.max((1 - MOM.maxBalloonChangePercent) * has, used + guestFree * has);
    const grown = Math.max((1 + MOM.maxBalloonChangePercent) * has, used + MOM.minGuestFreePercent * most);
    const wanted =
      hostFree < MOM.pressureThreshold
        ? Math.min(has, Math.max(shrunk, table.minBytes[row] ?? 0))
        : Math.min(most, grown);
    if (Math.abs(wanted - has) <= MOM.minBalloonChangePercent * has) continue;
    table.targetBytes[row] = ram - wanted;
    changed++;
  }
  return changed;
};

export const POLICIES = {
  balloond,
  'static limits': staticLimits,
  'Proxmox-style 80 % target': (host) => () => proxmoxCycle(host),
  'MOM-style host-free rules': mom,
} as const satisfies Record<string, Policy>;

export type PolicyName = keyof typeof POLICIES;
export const POLICY_NAMES = Object.keys(POLICIES) as PolicyName[];
