/** The rules of others (src/simulate/baselines.ts) at work on real VMs, which a daemon adopts, reads and does not move by itself. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TraceLine } from '../protocol/policy-trace.js';
import { ControlClient } from '../src/control/client.js';
import { MOVABLE, TAKEABLE, vmTable, type VmTable } from '../src/policy/inputs.js';
import { PolicySettings, type PolicyFile } from '../src/policy/settings.js';
import { emptyState } from '../src/policy/state.js';
import { BASELINES } from '../src/simulate/baselines.js';
import type { DaemonProcess } from '../test/support/daemon.js';

export type Policy = NonNullable<PolicyFile['policy']>;

/** They act so often, as they do by default. */
export const OTHERS_SECONDS = 10;
const STATS_SECONDS = 5;
const READS = { mode: 'observe', interval: 1, record: '{folder}/trace.ndjson' } as const;

/** The configuration of a daemon that adopts the VMs of a folder and governs them. */
export function governing(sockets: string, policy: Policy): string {
  return toml(sockets, { mode: 'auto', ...policy }, '');
}

/** The same of a daemon that only reads them, more often than others act. */
export function reading(sockets: string, policy: Policy): string {
  return toml(sockets, { ...READS, ...policy }, `[[vm]]\nmatch = "*"\nstats-interval = ${STATS_SECONDS}\n`);
}

function toml(sockets: string, { band = [], ...settings }: Policy, vms: string): string {
  const lines = (table: object): string =>
    Object.entries(table)
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
      .join('');
  return (
    `[[qmp]]\npath = "${sockets}/*.qmp"\n${vms}[policy]\n${lines(settings)}` +
    band.map((one) => `[[policy.band]]\n${lines(one)}`).join('')
  );
}

/** The VMs as the daemon read them, in the order of the line. */
function tableOf({ vms }: TraceLine, settings: PolicySettings): VmTable {
  const table = vmTable(vms.length);
  for (const [row, vm] of vms.entries()) {
    const { band, minBytes, maxBytes, weight } = settings.entitlement(vm.name, vm.ramBytes);
    table.band[row] = band;
    table.flags[row] = MOVABLE | TAKEABLE;
    table.ramBytes[row] = vm.ramBytes;
    table.minBytes[row] = minBytes;
    table.maxBytes[row] = maxBytes;
    table.weight[row] = weight;
    table.targetBytes[row] = vm.targetBytes;
    table.actualBytes[row] = vm.actualBytes;
    table.availableBytes[row] = vm.guestAvailableBytes ?? NaN;
    table.freeBytes[row] = vm.guestFreeBytes ?? NaN;
  }
  return table;
}

/** The rules at work until `over`, on the VMs of a daemon that reads them; a VM that ended meanwhile is left out. */
export async function govern(
  rules: keyof typeof BASELINES,
  daemon: DaemonProcess,
  policy: Policy,
  over: AbortSignal,
): Promise<void> {
  const client = new ControlClient(daemon.controlPath);
  const planner = BASELINES[rules]();
  const settings = new PolicySettings({ policy });
  for (let n = 0; !over.aborted; n++) {
    const text = readFileSync(join(daemon.folder, 'trace.ndjson'), 'utf8').trim().split('\n').at(-1) ?? '';
    const line = JSON.parse(text) as TraceLine;
    const { totalBytes, availableBytes } = line;
    const host = { nowSeconds: n * OTHERS_SECONDS, totalBytes, availableBytes, pressurePercent: 0 };
    const table = tableOf(line, settings);
    const { actions } = planner.plan(host, table, settings.config(totalBytes), emptyState(table.count));
    for (const action of actions) {
      const name = line.vms[action.row]?.name;
      if (action.kind !== 'target' || name === undefined) continue;
      const balloonBytes = Math.max(0, Math.round(action.toBytes));
      const isGone = (): boolean => daemon.log.includes(`"event":"vm-disconnected","vm":"${name}"`);
      // These rules know no least guest.
      await client.setTarget(name, { balloonBytes, force: true }).catch((error: unknown) => {
        if (!isGone()) throw error;
      });
    }
    await sleep(OTHERS_SECONDS * 1000, undefined, { signal: over }).catch(() => undefined);
  }
}
