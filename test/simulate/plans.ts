/**
 * Digests of every action that plan() wants in fleets of the simulator, and in hosts whose guests refuse, cannot be
 * asked or have page cache balloons. `node out/test/simulate/plans.js` writes them into test/simulate/plans.json: a change
 * that is not meant to change the policy leaves that file as it is.
 */
import { createHash, type Hash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Action } from '../../src/policy/action.js';
import { MOVABLE, TAKEABLE } from '../../src/policy/inputs.js';
import { PolicySettings } from '../../src/policy/settings.js';
import { Dice } from '../../src/simulate/dice.js';
import { POLICY_NAMES } from '../../src/simulate/planners.js';
import { simulateSynthetic, type Outcome } from '../../src/simulate/simulation.js';
import { CONFIG, MIB, vm, World } from '../policy/world.js';

const FILE = join(import.meta.dirname, '../../../test/simulate/plans.json');
const SEEDS = [1, 101, 102, 103, 104, 105];
const FLEET = { vms: 88, vmsPerHost: 88, hostBytes: 256 * 1024 * MIB, hours: 3, stepSeconds: 10 } as const;

export type Digests = Readonly<Record<string, string>>;

export function recordedDigests(): Digests {
  return JSON.parse(readFileSync(FILE, 'utf8')) as Digests;
}

/** The digests of this build, by the name of the fleet or host. */
export function digests(): Digests {
  const named = SEEDS.flatMap((seed) => [
    [`fleet of seed ${seed}`, fleetDigest(seed)] as const,
    [`hosts of seed ${seed}`, hostsDigest(seed)] as const,
  ]);
  return Object.fromEntries(named);
}

/** Each figure of an action in an order of its own, so that a field may get another name. */
function figures(action: Action): readonly unknown[] {
  const { reason } = action;
  const why = [
    ...[reason.cause, reason.hostAvailableBytes, reason.hostTotalBytes, reason.reserveBytes],
    ...[reason.idleBytes, reason.shedBytes, reason.stallPercent, reason.missingBytes, reason.counterpart],
  ];
  switch (action.kind) {
    case 'target':
    case 'cache-limit':
      return [action.kind, action.row, action.fromBytes, action.toBytes, ...why];
    case 'limit':
      return [action.kind, action.row, action.rung, action.highBytes, action.maxBytes, ...why];
    case 'kill':
      return [action.kind, action.row, ...why];
  }
}

function add(hash: Hash, values: readonly unknown[]): void {
  hash.update(`${JSON.stringify(values)}\n`);
}

function addOutcome(hash: Hash, { policy, available, stalls, ...rest }: Outcome): void {
  add(hash, [policy, rest.vmSteps, rest.stallShare, rest.oomSeconds, rest.changesPerVmHour]);
  add(hash, [Array.from(available), stalls.map((line) => Array.from(line))]);
}

function fleetDigest(seed: number): string {
  const hash = createHash('sha256');
  const settings = new PolicySettings({});
  for (const policy of POLICY_NAMES) {
    const outcome = simulateSynthetic({ ...FLEET, seed }, policy, settings, (_, nowSeconds, action) => {
      if (policy === 'balloond') add(hash, [nowSeconds, ...figures(action)]);
    });
    addOutcome(hash, outcome);
  }
  return hash.digest('hex');
}

/** Hosts with a few VMs each, of every kind there is, whose demands change. */
function hostsDigest(seed: number): string {
  const hash = createHash('sha256');
  const dice = new Dice(seed);
  for (let n = 0; n < 40; n++) {
    const host = randomHost(dice, n % 2 === 1);
    for (let second = 0; second < 120; second++) {
      const { actions, next } = host.step();
      for (const action of actions) add(hash, [second, ...figures(action)]);
      add(hash, [next.short, ...next.cells]);
      const changed = host.vms[Math.floor(dice.next() * host.vms.length)];
      if (changed !== undefined && second % 20 === 19)
        changed.wantsBytes = pages(1.2 * dice.next() * changed.ramBytes);
      if (second % 30 === 29) disturb(host, dice);
    }
  }
  return hash.digest('hex');
}

function randomHost(dice: Dice, kill: boolean): World {
  const vms = Array.from({ length: 1 + Math.floor(dice.next() * 8) }, () => {
    const ramBytes = (64 + Math.floor(dice.next() * 16000)) * MIB;
    const [low, high] = [dice.next(), dice.next()].sort((a, b) => a - b);
    return vm({
      band: Math.floor(dice.next() * 3),
      ramBytes,
      minBytes: pages((low ?? 0) * ramBytes),
      maxBytes: pages((high ?? 1) * ramBytes),
      weight: 2 ** Math.floor(dice.next() * 3),
      touchedBytes: pages(dice.next() * ramBytes),
      wantsBytes: pages(1.2 * dice.next() * ramBytes),
      refuses: dice.next() < 0.4,
      limitable: dice.next() < 0.7,
      cache: (['none', 'none', 'beside', 'alone'] as const)[Math.floor(dice.next() * 4)] ?? 'none',
    });
  });
  const bytes = vms.reduce((sum, { ramBytes }) => sum + ramBytes, 0);
  const bands = CONFIG.bands.map((band) => ({ ...band, kill }));
  return new World(Math.round((0.3 + 1.2 * dice.next()) * bytes), vms, { ...CONFIG, bands });
}

/** An operator changes a target, pauses or inhibits, or the host cannot see what a VM uses. */
function disturb({ table }: World, dice: Dice): void {
  const row = Math.floor(dice.next() * table.count);
  const kind = Math.floor(dice.next() * 4);
  if (kind === 0) table.targetBytes[row] = pages(dice.next() * (table.ramBytes[row] ?? 0));
  else if (kind === 1) table.flags[row] = (table.flags[row] ?? 0) ^ MOVABLE;
  else if (kind === 2) table.flags[row] = (table.flags[row] ?? 0) ^ TAKEABLE;
  else table.overheadBytes[row] = pages(dice.next() * 64 * MIB);
}

function pages(bytes: number): number {
  return Math.floor(bytes / 4096) * 4096;
}

if (process.argv[1] === import.meta.filename) writeFileSync(FILE, `${JSON.stringify(digests(), null, 2)}\n`);
