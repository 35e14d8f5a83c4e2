/**
 * The simulator: policies over fleets of modelled guests. `balloonctl policy simulate` calls simulate(), which makes a
 * demand for memory (workload: synthetic, trace: recorded), runs it (simulation) on hosts (host-model) that a policy
 * governs (planners: balloond's own, baselines: those it is compared with), and prints the outcome (report, capacities).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Output } from '../control/cli/output.js';
import { PolicySettings, type PolicyFile } from '../policy/settings.js';
import { POLICY_NAMES, type PolicyName } from './planners.js';
import { capacityTable, plotCapacities, type CapacityRow } from './capacities.js';
import { plotOutcomes, reportTable, sparkLines } from './report.js';
import {
  capacity,
  mostStalled,
  simulateHosts,
  simulateSynthetic,
  type Outcome,
  type SyntheticFleet,
} from './simulation.js';
import { parseTrace, simulateTrace } from './trace.js';
import { MIXTURE_NAMES } from './workload.js';

const OURS: PolicyName = 'balloond';

interface SimulateOptions extends Omit<SyntheticFleet, 'stepSeconds'> {
  readonly trace: string | undefined;
  readonly compare: boolean;
  readonly capacity: boolean;
  /** With capacity: this many fleets of each mixture, of numbers from `seed` on. */
  readonly seeds: number;
  readonly plot: string | undefined;
}

/** Throws TraceError, or what reading and writing files throws. */
export function simulate(output: Output, file: PolicyFile, options: SimulateOptions): void {
  const settings = new PolicySettings(file);
  if (options.capacity && options.seeds > 1) {
    survey(output, settings, options);
    return;
  }
  const bands = settings.bands.map(({ name }) => name);
  const policies: readonly PolicyName[] = options.compare || options.capacity ? POLICY_NAMES : [OURS];
  const fleet = { ...options, stepSeconds: 10 };
  const began = process.cpuUsage();
  const vmsPerHost: Partial<Record<PolicyName, number>> = {};
  const run = trial(options, fleet, settings, vmsPerHost);
  const outcomes = policies.map(run);
  const { user, system } = process.cpuUsage(began);
  const cpuSeconds = (user + system) / 1e6;
  const hours = options.hours;
  if (options.plot !== undefined) writeFileSync(options.plot, plotOutcomes(outcomes, bands, hours));
  if (output.json) {
    const documents = outcomes.map((outcome) => ({
      ...outcome,
      vmsPerHost: vmsPerHost[outcome.policy] ?? null,
      available: Array.from(outcome.available),
      stalls: outcome.stalls.map((line) => Array.from(line)),
    }));
    output.document({ bands, cpuSeconds, outcomes: documents });
    return;
  }
  output.print(reportTable(outcomes, bands));
  for (const outcome of outcomes) output.print(`\n${sparkLines(outcome, bands)}`);
  if (options.capacity) {
    const most = bands.map((band, n) => `${band} stalled at most ${100 * mostStalled(n)} %`);
    output.print(`\nVMs a host with ${most.join(', ')} and memory left:`);
    for (const [policy, count] of Object.entries(vmsPerHost)) output.print(`  ${count}  ${policy}`);
  }
  const steps = outcomes.reduce((sum, { vmSteps }) => sum + vmSteps, 0);
  output.print(`\n${steps} VM-steps shown, ${cpuSeconds.toFixed(1)} s of CPU in all`);
}

/** How many VMs a host may have under each policy, over several fleets, and the work done where each has as many as balloond's. */
function survey(output: Output, settings: PolicySettings, options: SimulateOptions): void {
  const { seeds, seed, vms: hosts, plot } = options;
  const rows: CapacityRow[] = [];
  for (const mixture of MIXTURE_NAMES) {
    const fleets = Array.from({ length: seeds }, (_, n) => ({
      ...options,
      stepSeconds: 10,
      mixture,
      seed: seed + n,
    }));
    const holds = (policy: PolicyName): number[] =>
      fleets.map((fleet) => capacity(fleet, hosts, policy, settings).vmsPerHost);
    const ours = holds(OURS);
    for (const policy of POLICY_NAMES) {
      const counts = policy === OURS ? ours : holds(policy);
      const works = fleets.map(
        (fleet, n) => simulateHosts(fleet, hosts, ours[n] ?? 1, policy, settings).workShare,
      );
      const bySize = (a: number, b: number): number => a - b;
      rows.push({ mixture, policy, counts: counts.toSorted(bySize), works: works.toSorted(bySize) });
    }
  }
  if (plot !== undefined) writeFileSync(plot, plotCapacities(rows));
  if (output.json) output.document(rows);
  else output.print(capacityTable(rows, seeds));
}

function trial(
  options: SimulateOptions,
  fleet: SyntheticFleet,
  settings: PolicySettings,
  vmsPerHost: Partial<Record<PolicyName, number>>,
): (policy: PolicyName) => Outcome {
  if (options.trace !== undefined) {
    const lines = parseTrace(readFileSync(options.trace, 'utf8'));
    return (policy) => simulateTrace(lines, policy, settings);
  }
  if (!options.capacity) return (policy) => simulateSynthetic(fleet, policy, settings);
  return (policy) => {
    const fits = capacity(fleet, fleet.vms, policy, settings);
    vmsPerHost[policy] = fits.vmsPerHost;
    return fits.outcome;
  };
}
