import type { Action } from '../policy/action.js';
import type { PolicySettings } from '../policy/settings.js';
import { HostModel } from './host-model.js';
import { SimulatedGovernor, type PolicyName } from './planners.js';
import { Workload, type MixtureName } from './workload.js';

export interface SyntheticFleet {
  readonly vms: number;
  readonly vmsPerHost: number;
  readonly hostBytes: number;
  readonly hours: number;
  readonly stepSeconds: number;
  readonly seed: number;
  readonly mixture?: MixtureName;
}

export interface Outcome {
  readonly policy: PolicyName;
  readonly vmSteps: number;
  /** Of the time of all its VMs, by band: how much they waited for memory. */
  readonly stallShare: readonly number[];
  /**
   * The part of their time in which VMs did not wait for memory, weighted by the weights of their bands: 1 is all work that there
   * was to do.
   */
  readonly workShare: number;
  readonly oomSeconds: number;
  readonly changesPerVmHour: number;
  /** Mean over hosts, of host memory: one point for each of POINTS parts of the time. */
  readonly available: Float64Array;
  /** By band, the same for stalls. */
  readonly stalls: readonly Float64Array[];
}

export const POINTS = 144;
/** On one host: nobody asks for more. */
const MOST_VMS = 1024;
/**
 * The most that VMs of a band may wait for memory, of their time, on a host that is not too full: gold, silver, and all bands
 * below. A host whose lower bands do nothing but wait would hold any number of VMs.
 */
const MOST_STALLED = [0.001, 0.05, 0.25] as const;

export function mostStalled(band: number): number {
  return MOST_STALLED[Math.min(band, MOST_STALLED.length - 1)] ?? 0;
}

export function weightsOf({ bands }: Pick<PolicySettings, 'bands'>): number[] {
  return bands.map(({ weight }) => weight);
}

/** A fifth is gold, three tenths silver; the rest is bronze, or whatever the bands in the middle and below are called. */
function bandOfRank(rank: number, bands: number): number {
  if (bands === 1) return 0;
  if (rank < 0.2) return 0;
  return Math.min(bands - 1, rank < 0.5 ? 1 : bands - 1);
}

/** Hosts do not know of each other, so that they are run one after the other. */
export function simulateSynthetic(
  fleet: SyntheticFleet,
  policy: PolicyName,
  settings: PolicySettings,
  seen?: (host: HostModel, nowSeconds: number, action: Action) => void,
): Outcome {
  const tally = new Tally(policy, weightsOf(settings), fleet.hours * 3600);
  for (let first = 0, n = 0; first < fleet.vms; first += fleet.vmsPerHost, n++) {
    const count = Math.min(fleet.vmsPerHost, fleet.vms - first);
    const workload = new Workload(count, fleet.seed * 100_003 + n, fleet.mixture);
    const names = Array.from({ length: count }, (_, row) => `vm-${first + row}`);
    const bandOf = (row: number): number => bandOfRank(workload.rank[row] ?? 1, settings.bands.length);
    const host = new HostModel(workload, fleet.hostBytes, names, bandOf, settings);
    let now = 0;
    const config = settings.config(fleet.hostBytes);
    const governor = new SimulatedGovernor(policy, host, config, (action) => seen?.(host, now, action));
    for (; now < fleet.hours * 3600; now += fleet.stepSeconds) {
      workload.step(now, fleet.stepSeconds);
      host.step(fleet.stepSeconds);
      tally.step(host, now, governor.tick(now));
    }
    tally.end(host);
  }
  return tally.outcome();
}

/** Adds up what happens to hosts over the time. */
export class Tally {
  readonly #policy: PolicyName;
  readonly #weights: readonly number[];
  readonly #seconds: number;
  readonly #stall: Float64Array;
  readonly #time: Float64Array;
  readonly #available = new Float64Array(POINTS);
  readonly #looks = new Float64Array(POINTS);
  readonly #stalls: Float64Array[];
  readonly #times: Float64Array[];
  #vmSteps = 0;
  #changes = 0;
  #oomSeconds = 0;

  /** `weights`: of the bands. */
  constructor(policy: PolicyName, weights: readonly number[], seconds: number) {
    const bands = weights.length;
    this.#policy = policy;
    this.#weights = weights;
    this.#seconds = seconds;
    this.#stall = new Float64Array(bands);
    this.#time = new Float64Array(bands);
    this.#stalls = Array.from({ length: bands }, () => new Float64Array(POINTS));
    this.#times = Array.from({ length: bands }, () => new Float64Array(POINTS));
  }

  step(host: HostModel, nowSeconds: number, changes: number): void {
    const point = Math.min(POINTS - 1, Math.floor((nowSeconds / this.#seconds) * POINTS));
    this.#available[point] = (this.#available[point] ?? 0) + host.availableBytes / host.totalBytes;
    this.#looks[point] = (this.#looks[point] ?? 0) + 1;
    this.#vmSteps += host.table.count;
    this.#changes += changes;
    for (const [band, stalls] of this.#stalls.entries()) {
      const times = this.#times[band];
      // Differences of sums: what this host added since the last look at it.
      const stall = (host.stallSeconds[band] ?? 0) - (this.#last(host).stall[band] ?? 0);
      const time = (host.vmSeconds[band] ?? 0) - (this.#last(host).time[band] ?? 0);
      stalls[point] = (stalls[point] ?? 0) + stall;
      if (times !== undefined) times[point] = (times[point] ?? 0) + time;
    }
    this.#last(host).stall.set(host.stallSeconds);
    this.#last(host).time.set(host.vmSeconds);
  }

  end(host: HostModel): void {
    this.#oomSeconds += host.oomSeconds;
    for (let band = 0; band < this.#stall.length; band++) {
      this.#stall[band] = (this.#stall[band] ?? 0) + (host.stallSeconds[band] ?? 0);
      this.#time[band] = (this.#time[band] ?? 0) + (host.vmSeconds[band] ?? 0);
    }
  }

  outcome(): Outcome {
    const vmHours = this.#time.reduce((sum, seconds) => sum + seconds, 0) / 3600;
    return {
      policy: this.#policy,
      vmSteps: this.#vmSteps,
      stallShare: Array.from(this.#stall, (stall, band) => stall / Math.max(1, this.#time[band] ?? 0)),
      workShare: this.#workShare,
      oomSeconds: this.#oomSeconds,
      changesPerVmHour: this.#changes / Math.max(1, vmHours),
      available: this.#available.map((sum, point) => sum / Math.max(1, this.#looks[point] ?? 0)),
      stalls: this.#stalls.map((sums, band) =>
        sums.map((sum, point) => sum / Math.max(1, this.#times[band]?.[point] ?? 0)),
      ),
    };
  }

  get #workShare(): number {
    const weighted = (seconds: Float64Array): number =>
      this.#weights.reduce((sum, weight, band) => sum + weight * (seconds[band] ?? 0), 0);
    const time = weighted(this.#time);
    return time === 0 ? 1 : 1 - weighted(this.#stall) / time;
  }

  #lastHost: HostModel | null = null;
  #lastSums = { stall: new Float64Array(0), time: new Float64Array(0) };

  #last(host: HostModel): { stall: Float64Array; time: Float64Array } {
    if (host !== this.#lastHost) {
      this.#lastHost = host;
      const bands = this.#stall.length;
      this.#lastSums = { stall: new Float64Array(bands), time: new Float64Array(bands) };
    }
    return this.#lastSums;
  }
}

/**
 * How many VMs a host of that size can have before a band waits for more of its time than it may, or the host has nothing
 * left. The same VMs for each policy: a fleet of n is one of n - 1 and one more.
 */
export function capacity(
  fleet: Omit<SyntheticFleet, 'vms' | 'vmsPerHost'>,
  hosts: number,
  policy: PolicyName,
  settings: PolicySettings,
): { vmsPerHost: number; outcome: Outcome } {
  const run = (vmsPerHost: number): Outcome => simulateHosts(fleet, hosts, vmsPerHost, policy, settings);
  const fits = ({ stallShare, oomSeconds }: Outcome): boolean =>
    oomSeconds === 0 && stallShare.every((share, band) => share <= mostStalled(band));
  let low = 1;
  let best = run(low);
  // Doubled until they do not fit, then halved.
  let high = MOST_VMS;
  while (high - low > 1) {
    const middle = Math.min(2 * low, Math.floor((low + high) / 2));
    const outcome = run(middle);
    if (fits(outcome)) {
      low = middle;
      best = outcome;
    } else high = middle;
  }
  return { vmsPerHost: low, outcome: best };
}

/** So many hosts with so many VMs each. */
export function simulateHosts(
  fleet: Omit<SyntheticFleet, 'vms' | 'vmsPerHost'>,
  hosts: number,
  vmsPerHost: number,
  policy: PolicyName,
  settings: PolicySettings,
): Outcome {
  return simulateSynthetic({ ...fleet, vmsPerHost, vms: hosts * vmsPerHost }, policy, settings);
}
