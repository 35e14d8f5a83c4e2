/** What the page shows of what it is told: everything but the elements. */
import {
  bandSeries,
  LIVE_TICKS,
  SAMPLE_MS,
  SAMPLES,
  samplesOf,
  type LiveHistory,
  type LiveTick,
  type LiveVm,
} from '../../protocol/control/live.js';

interface Point {
  readonly time: number;
  readonly value: number;
}

/** The last ticks, and nothing of VMs that are gone. */
export class Ticks {
  readonly #ticks: LiveTick[] = [];

  /** Returns false for ticks that come again, as they do when the page connects again: they are left out. */
  add(tick: LiveTick): boolean {
    const last = this.#ticks.at(-1);
    if (last !== undefined && tick.time <= last.time) return false;
    this.#ticks.push(tick);
    if (this.#ticks.length > LIVE_TICKS) this.#ticks.shift();
    return true;
  }

  get latest(): LiveTick | undefined {
    return this.#ticks.at(-1);
  }

  get all(): readonly LiveTick[] {
    return this.#ticks;
  }

  /** By VM, of those there are. */
  series(read: (vm: LiveVm) => number): Map<string, Point[]> {
    const all = new Map<string, Point[]>((this.latest?.vms ?? []).map(({ name }) => [name, []]));
    for (const { time, vms } of this.#ticks) {
      for (const vm of vms) all.get(vm.name)?.push({ time, value: read(vm) });
    }
    return all;
  }
}

/** The last hour of some series: that which the daemon remembers, and behind it the present. */
export class Hour {
  #times: number[] = [];
  readonly #series = new Map<string, (number | null)[]>();
  readonly #wanted: (name: string) => boolean;

  constructor(wanted: (name: string) => boolean) {
    this.#wanted = wanted;
  }

  /** Puts the samples of the daemon before those that are there. */
  load({ times, series }: LiveHistory): void {
    const first = this.#times[0] ?? Infinity;
    const count = times.filter((time) => time < first).length;
    for (const name of new Set([...this.#series.keys(), ...Object.keys(series)])) {
      const before = series[name]?.slice(0, count) ?? nothing(count);
      this.#series.set(name, [...before, ...(this.#series.get(name) ?? nothing(this.#times.length))]);
    }
    this.#times = [...times.slice(0, count), ...this.#times];
    this.#drop();
  }

  /** The newest sample is that of now, and stays when it is older than the time between two samples. */
  add(tick: LiveTick): void {
    const [before, last] = this.#times.slice(-2);
    if ((last ?? 0) >= tick.time) return;
    if (before !== undefined && last !== undefined && last - before < SAMPLE_MS) {
      this.#times.pop();
      for (const values of this.#series.values()) values.pop();
    }
    const samples = new Map([...samplesOf(tick)].filter(([name]) => this.#wanted(name)));
    for (const name of samples.keys())
      if (!this.#series.has(name)) this.#series.set(name, nothing(this.#times.length));
    this.#times.push(tick.time);
    for (const [name, values] of this.#series) values.push(samples.get(name) ?? null);
    this.#drop();
  }

  /** Milliseconds since the epoch. */
  get times(): readonly number[] {
    return this.#times;
  }

  /** Null where there was no value. */
  values(name: string): readonly (number | null)[] {
    return this.#series.get(name) ?? nothing(this.#times.length);
  }

  has(name: string): boolean {
    return this.#series.get(name)?.some((value) => value !== null) === true;
  }

  get names(): string[] {
    return [...this.#series.keys()];
  }

  #drop(): void {
    const from = (this.#times.at(-1) ?? 0) - SAMPLES * SAMPLE_MS;
    const old = this.#times.findIndex((time) => time > from);
    if (old <= 0) return;
    this.#times.splice(0, old);
    for (const values of this.#series.values()) values.splice(0, old);
  }
}

function nothing(count: number): null[] {
  return Array.from({ length: count }, () => null);
}

/** A part of the memory of the host that is in use. */
interface Layer {
  readonly label: string;
  /** A colour by its number; null: it is not in VMs. */
  readonly colour: number | null;
  /** Bytes of this part. */
  readonly values: readonly number[];
  /** Bytes of this part and of all parts below. */
  readonly tops: readonly number[];
}

/** Memory of the host in use, from the bottom up: VMs by their bands, highest first, then the rest. Free memory is above. */
export function hostLayers(hour: Hour, bands: readonly string[]): Layer[] {
  const { times } = hour;
  if (times.length === 0) return [];
  let below: readonly number[] = times.map(() => 0);
  const layer = (label: string, colour: number | null, values: readonly number[]): Layer => {
    below = values.map((value, at) => value + (below[at] ?? 0));
    return { label, colour, values, tops: below };
  };
  const others = hour.names.filter((name) => name.startsWith('band ')).map((name) => name.slice(5));
  const named = [...bands, ...others.filter((band) => !bands.includes(band)).sort()];
  const layers = named
    .map((band, colour) => ({ band, colour }))
    .filter(({ band }) => hour.has(bandSeries(band)))
    .map(({ band, colour }) => {
      const values = hour.values(bandSeries(band)).map((value) => value ?? 0);
      return layer(band === '' ? 'VMs' : `VMs in ${band}`, colour, values);
    });
  const available = hour.values('host available');
  const total = hour.values('host total');
  // Shared memory that is in use twice, or a host that counts later, is no less than nothing.
  const rest = times.map((_, at) => Math.max(0, (total[at] ?? 0) - (available[at] ?? 0) - (below[at] ?? 0)));
  return [...layers, layer('other programs', null, rest)];
}

/** Where the reserve begins, in the stack of memory in use; null: it is not known. Of a part of the host, that moves with the other programs. */
export function reserveBegins(hour: Hour): (number | null)[] {
  const [total, available, part, reserve] = ['total', 'available', 'part available', 'reserve'].map((name) =>
    hour.values(`host ${name}`),
  );
  return hour.times.map((_, at) => {
    const [all, free, kept] = [total?.[at] ?? null, available?.[at] ?? null, reserve?.[at] ?? null];
    if (all === null || free === null || kept === null) return null;
    return all - free + (part?.[at] ?? free) - kept;
  });
}

/** The keys by which the table is sorted. */
export const SORT_KEYS = [
  'name',
  'state',
  'band',
  'memory',
  'host',
  'balloon',
  'target',
  'available',
] as const;
export type SortKey = (typeof SORT_KEYS)[number];

export interface Sorting {
  readonly key: SortKey;
  readonly descending: boolean;
}

const FIGURES: Readonly<Record<Exclude<SortKey, 'name' | 'state' | 'band'>, (vm: LiveVm) => number>> = {
  memory: ({ ramBytes }) => ramBytes,
  host: ({ allocatedBytes }) => allocatedBytes,
  balloon: ({ actualBytes }) => actualBytes,
  target: ({ targetBytes }) => targetBytes,
  available: ({ availableBytes }) => availableBytes ?? -1,
};
const NATURAL = new Intl.Collator('en', { numeric: true });

/** VMs with the same figure by their names; bands in the order of the policy. */
export function sorted(
  vms: readonly LiveVm[],
  { key, descending }: Sorting,
  bands: readonly string[],
): LiveVm[] {
  const rank = ({ band }: LiveVm): number => {
    const at = bands.indexOf(band ?? '');
    return at < 0 ? bands.length : at;
  };
  const compare = (a: LiveVm, b: LiveVm): number => {
    if (key === 'name') return 0;
    if (key === 'state') return a.state.localeCompare(b.state);
    if (key === 'band') return rank(a) - rank(b);
    return FIGURES[key](a) - FIGURES[key](b);
  };
  const sign = descending ? -1 : 1;
  return [...vms].sort((a, b) => {
    const by = sign * compare(a, b);
    return by === 0 ? (key === 'name' ? sign : 1) * NATURAL.compare(a.name, b.name) : by;
  });
}

interface Filter {
  readonly text: string;
  /** Empty: VMs of all bands. */
  readonly band: string;
  /** Only VMs that need a look: with a verdict or a badge. */
  readonly notable: boolean;
}

export function isShown(vm: LiveVm, { text, band, notable }: Filter): boolean {
  const named = vm.name.toLowerCase().includes(text.trim().toLowerCase());
  const marked = vm.verdict !== null || badgesOf(vm).length > 0;
  return named && (band === '' || vm.band === band) && (!notable || marked);
}

/** Something about a VM that an operator should see at once. */
interface Badge {
  readonly kind: 'inhibited' | 'paused' | 'forced' | 'refilled';
  readonly text: string;
  /** More about it. */
  readonly title: string;
}

export function badgesOf({ inhibited, mode, force, refilledBytes }: LiveVm): Badge[] {
  const badges: (Badge | null)[] = [
    inhibited === null
      ? null
      : { kind: 'inhibited', text: 'inhibited', title: `not discarding: ${inhibited}` },
    mode === 'manual'
      ? { kind: 'paused', text: 'manual', title: 'the policy leaves this VM alone, because of an order' }
      : null,
    mode === 'paused'
      ? { kind: 'paused', text: 'paused', title: 'an operator paused the policy for all VMs' }
      : null,
    force === 'none'
      ? null
      : { kind: 'forced', text: `forced (${force})`, title: 'the policy holds this VM to less' },
    refilledBytes === 0
      ? null
      : { kind: 'refilled', text: 'refilled', title: 'memory of the balloon came back to the host' },
  ];
  return badges.filter((badge) => badge !== null);
}

/** An SVG path through the points from `from` to `to`, where `most` is at the top. */
export function sparkline(
  points: readonly Point[],
  from: number,
  to: number,
  most: number,
  width: number,
  height: number,
): string {
  const span = Math.max(1, to - from);
  const corners = points.map(({ time, value }) =>
    corner(((time - from) / span) * width, height - Math.min(1, value / Math.max(1, most)) * height),
  );
  return corners.length === 0 ? '' : `M${corners.join('L')}`;
}

function corner(x: number, y: number): string {
  return `${Math.round(x * 10) / 10} ${Math.round(y * 10) / 10}`;
}
