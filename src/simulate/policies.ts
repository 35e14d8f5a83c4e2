/**
 * The policy of this project and what it is compared with. The others are their rules as their documentation tells them,
 * written anew: Proxmox VE's "Automatic Memory Allocation" (pve-docs, qm), and the balloon rules of the Memory
 * Overcommitment Manager (its sample policy, doc/balloon.rules).
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

/** Towards 80 % of the host in use, by shares, between each VM's minimum and maximum; 100 MiB a VM and cycle. */
function proxmoxCycle(host: HostModel, table: HostModel['table']): number {
  let goal = 0.8 * host.totalBytes - (host.totalBytes - host.availableBytes);
  if (Math.abs(goal) < 10 * MIB) return 0;
  const sign = Math.sign(goal);
  const moved = new Float64Array(table.count);
  let open = Array.from({ length: table.count }, (_, row) => row);
  while (Math.abs(goal) > MIB && open.length > 0) {
    // Who has more shares gets more, and gives less.
    const part = (row: number): number => (table.weight[row] ?? 1) ** sign;
    const parts = open.reduce((sum, row) => sum + part(row), 0);
    const each = Math.abs(goal) / parts;
    const next: number[] = [];
    for (const row of open) {
      const ram = table.ramBytes[row] ?? 0;
      const has = ram - (table.targetBytes[row] ?? 0) + (moved[row] ?? 0);
      const most = sign > 0 ? (table.maxBytes[row] ?? ram) - has : has - (table.minBytes[row] ?? 0);
      const room = Math.min(Math.max(0, most), 100 * MIB - Math.abs(moved[row] ?? 0));
      const bytes = Math.min(room, each * part(row));
      moved[row] = (moved[row] ?? 0) + sign * bytes;
      goal -= sign * bytes;
      if (bytes < room) next.push(row);
    }
    if (next.length === open.length) break;
    open = next;
  }
  let changed = 0;
  for (let row = 0; row < table.count; row++) {
    if (Math.abs(moved[row] ?? 0) < MIB) continue;
    table.targetBytes[row] = (table.targetBytes[row] ?? 0) - (moved[row] ?? 0);
    changed++;
  }
  return changed;
}

/**
 * With less than 20 % of the host free every guest shrinks by 5 % a cycle, as long as it keeps 20 % free (5 % when the
 * host has less than 5 % free); with more, every guest grows by 5 %.
 */
const mom: Policy = (host) => () => {
  const { table } = host;
  const free = host.availableBytes / host.totalBytes;
  const guestFree = free < 0.05 ? 0.05 : 0.2;
  let changed = 0;
  for (let row = 0; row < table.count; row++) {
    const ram = table.ramBytes[row] ?? 0;
    const has = ram - (table.targetBytes[row] ?? 0);
    const used = has - Math.max(0, Math.min(has, table.availableBytes[row] ?? 0));
    const least = Math.max(table.minBytes[row] ?? 0, used + guestFree * has);
    const wanted =
      free < 0.2
        ? Math.min(has, Math.max(0.95 * has, least))
        : Math.min(1.05 * has, table.maxBytes[row] ?? ram);
    // Changes below 0.25 % are not worth it.
    if (Math.abs(wanted - has) <= 0.0025 * has) continue;
    table.targetBytes[row] = ram - wanted;
    changed++;
  }
  return changed;
};

export const POLICIES = {
  balloond,
  'static limits': staticLimits,
  'Proxmox-style 80 % target': (host) => () => proxmoxCycle(host, host.table),
  'MOM-style host-free rules': mom,
} as const satisfies Record<string, Policy>;

export type PolicyName = keyof typeof POLICIES;
export const POLICY_NAMES = Object.keys(POLICIES) as PolicyName[];
