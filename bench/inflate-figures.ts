import { BUILTIN, LIMIT, type Outcome, type Refusal } from './inflate.js';
import type { Round } from './race.js';
import { median, percentile, report, type Row } from './table.js';

const GIB = 2 ** 30;

/** What is told of a contender's rounds: medians, and null where there is nothing to tell. */
export interface Figures {
  readonly backing: string;
  readonly pattern: string;
  readonly contender: string;
  /** From the first kick until the memory was free; null unless all of it was, in each round. */
  readonly gibPerSecond: number | null;
  readonly slowestGibPerSecond: number | null;
  readonly fastestGibPerSecond: number | null;
  /** The same until the last ack. */
  readonly ackedGibPerSecond: number | null;
  readonly timesBuiltin: number | null;
  readonly ofLimit: number | null;
  /** Null for a contender that has no kicks. */
  readonly ackP50Micros: number | null;
  readonly ackP99Micros: number | null;
  /** Of the VMM and the daemon, and how much of it was whose. */
  readonly cpuSecondsPerGib: number;
  readonly vmmSecondsPerGib: number;
  readonly ringSecondsPerGib: number;
  readonly discardSecondsPerGib: number;
  /** How long threads that discard waited for a core. */
  readonly discardsWaitingPerGib: number;
  /** By all of these and the driver, until the memory was free; null unless it was. */
  readonly coresBusy: number | null;
  /** While system calls discarded. */
  readonly discardingGibPerSecond: number | null;
  readonly hugePagesSplit: number;
  readonly freedShare: number;
}

export function figures({ backing, pattern, givenBytes, entries }: Outcome): Figures[] {
  const gib = givenBytes / GIB;
  const speeds = entries.map(({ rounds }) =>
    rounds.map(({ freeSeconds }) => (freeSeconds === null ? NaN : gib / freeSeconds)),
  );
  const all = entries.map(({ name, rounds }, n) => {
    const own = speeds[n] ?? [];
    const micros = rounds.flatMap((round) => round.micros);
    const kicks = micros.length > rounds.length ? micros : [];
    const of = (value: (round: Round) => number): number => median(rounds.map(value));
    return {
      backing,
      pattern,
      contender: name,
      gibPerSecond: known(own.includes(NaN) ? NaN : median(own)),
      slowestGibPerSecond: known(Math.min(...own)),
      fastestGibPerSecond: known(Math.max(...own)),
      ackedGibPerSecond: known(
        of(({ micros: each }) =>
          each.length > 1 ? gib / (each.reduce((sum, one) => sum + one, 0) / 1e6) : NaN,
        ),
      ),
      ackP50Micros: known(percentile(kicks, 50)),
      ackP99Micros: known(percentile(kicks, 99)),
      cpuSecondsPerGib: of(({ cpu }) => cpu.vmm + cpu.rings + cpu.discards) / gib,
      vmmSecondsPerGib: of(({ cpu }) => cpu.vmm) / gib,
      ringSecondsPerGib: of(({ cpu }) => cpu.rings) / gib,
      discardSecondsPerGib: of(({ cpu }) => cpu.discards) / gib,
      discardsWaitingPerGib: of(({ cpu }) => cpu.discardsWaiting) / gib,
      coresBusy: known(
        of(({ cpu: { driver, vmm, rings, discards }, freeSeconds }) =>
          freeSeconds === null ? NaN : (driver + vmm + rings + discards) / freeSeconds,
        ),
      ),
      discardingGibPerSecond: known(
        of(({ discarding }) => (discarding === null ? NaN : discarding.bytes / GIB / discarding.seconds)),
      ),
      hugePagesSplit: of((round) => round.hugePagesSplit),
      freedShare: of((round) => round.freedBytes) / givenBytes,
    };
  });
  const against = (name: string, speed: number | null): number | null => {
    const other = all.find(({ contender }) => contender === name)?.gibPerSecond ?? null;
    return speed === null || other === null ? null : speed / other;
  };
  return all.map((each) => ({
    ...each,
    timesBuiltin: against(BUILTIN, each.gibPerSecond),
    ofLimit: against(LIMIT, each.gibPerSecond),
  }));
}

function row(figures: Figures): Row {
  const { gibPerSecond, slowestGibPerSecond, fastestGibPerSecond, freedShare } = figures;
  return {
    backing: figures.backing,
    pattern: figures.pattern,
    contender: figures.contender,
    'GiB/s until free':
      gibPerSecond === null
        ? `frees ${(freedShare * 100).toFixed(0)} %`
        : `${short(gibPerSecond)} (${short(slowestGibPerSecond)}..${short(fastestGibPerSecond)})`,
    'x built-in': short(figures.timesBuiltin),
    'of limit': short(figures.ofLimit),
    'GiB/s until acked': short(figures.ackedGibPerSecond),
    'ack p50 µs': short(figures.ackP50Micros),
    'p99 µs': short(figures.ackP99Micros),
    'CPU s/GiB': short(figures.cpuSecondsPerGib),
    'VMM + rings + discards': [
      figures.vmmSecondsPerGib,
      figures.ringSecondsPerGib,
      figures.discardSecondsPerGib,
    ]
      .map(short)
      .join(' + '),
    'discards waiting': short(figures.discardsWaitingPerGib),
    'cores busy': short(figures.coresBusy),
    'GiB/s discarding': short(figures.discardingGibPerSecond),
    'huge pages split': figures.hugePagesSplit,
  };
}

function refusalRow({ backing, refused }: Refusal): Row {
  return { backing, pattern: `not measured: ${refused}` };
}

function known(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** To three digits, without exponent; '-' for none. */
export function short(value: number | null): string {
  if (value === null) return '-';
  return value.toFixed(Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.max(value, 0.001))))));
}

/** Prints and keeps what was measured, `more` rows below; returns the figures for a plot. */
export function reportInflate(
  name: string,
  outcomes: readonly (Outcome | Refusal)[],
  more: readonly Row[] = [],
): Figures[] {
  const all = outcomes.map((outcome) => ('refused' in outcome ? outcome : figures(outcome)));
  const rows = all.flatMap((each) => ('refused' in each ? [refusalRow(each)] : each.map(row)));
  const measured = all.flatMap((each) => ('refused' in each ? [] : each));
  report(name, [...rows, ...more], measured);
  return measured;
}
