/**
 * How many VMs fit a host under each policy, by the simulator: writes the pictures of docs/policy.md, and
 * bench/results/policy-capacity.json. docs/figures.json has those that stand in pages.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CapacityRow } from '../src/simulate/capacities.js';
import type { PolicyName } from '../src/simulate/planners.js';

const ROOT = join(import.meta.dirname, '../..');
const HOSTS = 4;
const FLEETS = { seed: 101, seeds: 5 } as const;

/** What the file holds. */
export interface PolicyCapacity {
  /** VMs a host in the fleet of seed 1. */
  readonly seed1: Readonly<Record<PolicyName, number>>;
  /** Over the fleets of several seeds, sorted by size. */
  readonly fleets: readonly CapacityRow[];
}

function simulate(...args: string[]): unknown {
  const program = join(ROOT, 'out/bin/balloonctl.js');
  const command = ['policy', 'simulate', '--json', '--synthetic', String(HOSTS), '--capacity', ...args];
  return JSON.parse(execFileSync(process.execPath, [program, ...command], { encoding: 'utf8' }));
}

function main(): void {
  const { outcomes } = simulate('--plot', join(ROOT, 'docs/policy.svg')) as {
    outcomes: { policy: PolicyName; vmsPerHost: number }[];
  };
  const seed1 = Object.fromEntries(outcomes.map(({ policy, vmsPerHost }) => [policy, vmsPerHost]));
  const fleets = simulate(
    ...['--seeds', String(FLEETS.seeds), '--seed', String(FLEETS.seed)],
    ...['--plot', join(ROOT, 'docs/policy-capacity.svg')],
  ) as CapacityRow[];
  const found = { seed1, fleets };
  mkdirSync(join(ROOT, 'bench/results'), { recursive: true });
  writeFileSync(join(ROOT, 'bench/results/policy-capacity.json'), `${JSON.stringify(found, null, 2)}\n`);
  for (const [policy, vms] of Object.entries(seed1)) console.log(`seed 1: ${vms} VMs a host: ${policy}`);
  for (const { mixture, policy, counts } of fleets) console.log(`${mixture}: ${counts.join()}: ${policy}`);
}

if (process.argv[1] === import.meta.filename) main();
