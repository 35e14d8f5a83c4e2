/** The words of the page at the metrics address: what the daemon tells it again and again, and of the last hour. */
import type { PolicyState } from './schema.js';

/** A VM as the page shows it: just that. */
export interface LiveVm {
  readonly name: string;
  readonly kind: string;
  readonly state: string;
  /** Of the policy; null without one. */
  readonly band: string | null;
  /** Who decides about the VM; null without a policy. */
  readonly mode: string | null;
  readonly force: PolicyState['vms'][number]['force'];
  /** The reason why nothing is discarded; null: pages are discarded. */
  readonly inhibited: string | null;
  readonly ramBytes: number;
  readonly targetBytes: number;
  readonly actualBytes: number;
  /** The guest has yet to say how much that is. */
  readonly actualUnknown: boolean;
  /** What its page cache balloon holds; null: it has none. */
  readonly cacheBytes: number | null;
  /** What guest memory takes up on the host. */
  readonly allocatedBytes: number;
  /** By the last word of the guest; null: it said nothing. */
  readonly availableBytes: number | null;
  /** The working set that the balloon follows; null: it follows none. */
  readonly workingSetBytes: number | null;
  /** Memory of the balloon that came back to the host; 0 where nobody knows. */
  readonly refilledBytes: number;
  readonly verdict: string | null;
}

/** The policy as the page shows it. */
export interface LivePolicy {
  readonly mode: PolicyState['mode'];
  readonly paused: boolean;
  /** Highest first. */
  readonly bands: readonly string[];
  /** Null: the policy has not looked at the host. */
  readonly reserveBytes: number | null;
  /** The part of the host that VMs may have (`memory` in `[policy]`), and what of it is available; null: they may have all of it. */
  readonly part: { readonly totalBytes: number; readonly availableBytes: number } | null;
  readonly pressurePercent: number | null;
}

export interface LiveTick {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly hostTotalBytes: number;
  readonly hostAvailableBytes: number;
  readonly policy: LivePolicy;
  readonly vms: readonly LiveVm[];
}

/** Ticks that a page is told of at once when it comes. */
export const LIVE_TICKS = 150;

/** The time between two samples that are remembered, and their number: an hour. */
export const SAMPLE_MS = 10_000;
export const SAMPLES = 360;

/** Samples of the last hour, oldest first; null where there was none. Times are milliseconds since the epoch. */
export interface LiveHistory {
  readonly times: readonly number[];
  readonly series: Readonly<Record<string, readonly (number | null)[]>>;
}

/** The series of one VM. */
export const VM_SERIES = ['target', 'actual', 'allocated', 'available', 'working'] as const;
export type VmSeries = (typeof VM_SERIES)[number];

export function vmSeries(series: VmSeries, name: string): string {
  return `${series} ${name}`;
}

/** VMs without a band have a series of their own. */
export function bandSeries(band: string | null): string {
  return `band ${band ?? ''}`;
}

/** The figures of a tick by the names of their series. Figures that are not known are left out. */
export function samplesOf(tick: LiveTick): Map<string, number> {
  const { hostTotalBytes, hostAvailableBytes, policy, vms } = tick;
  const samples = new Map<string, number>([
    ['host total', hostTotalBytes],
    ['host available', hostAvailableBytes],
  ]);
  const set = (series: string, value: number | null): void => {
    if (value !== null) samples.set(series, value);
  };
  set('host reserve', policy.reserveBytes);
  set('host part available', policy.part?.availableBytes ?? null);
  set('host pressure', policy.pressurePercent);
  for (const vm of vms) {
    const band = bandSeries(vm.band);
    samples.set(band, (samples.get(band) ?? 0) + vm.allocatedBytes);
    set(vmSeries('target', vm.name), vm.targetBytes);
    set(vmSeries('actual', vm.name), vm.actualUnknown ? null : vm.actualBytes);
    set(vmSeries('allocated', vm.name), vm.allocatedBytes);
    set(vmSeries('available', vm.name), vm.availableBytes);
    set(vmSeries('working', vm.name), vm.workingSetBytes);
  }
  return samples;
}
