/** What the page shows of what it is told: everything but the elements. */
import { LIVE_TICKS, type LiveTick, type LiveVm } from '../../protocol/control/live.js';

interface Point {
  readonly time: number;
  readonly value: number;
}

/** The last ticks, and nothing of VMs that are gone. */
export class History {
  readonly #ticks: LiveTick[] = [];

  /** Ticks that come again, as they do when the page connects again, are left out. */
  add(tick: LiveTick): void {
    const last = this.#ticks.at(-1);
    if (last !== undefined && tick.time <= last.time) return;
    this.#ticks.push(tick);
    if (this.#ticks.length > LIVE_TICKS) this.#ticks.shift();
  }

  get latest(): LiveTick | undefined {
    return this.#ticks.at(-1);
  }

  get ticks(): readonly LiveTick[] {
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

/** What is in a moment of the host's memory, from the bottom up. */
interface Layer {
  readonly label: string;
  /** A colour by its number; null: what is not in VMs. */
  readonly colour: number | null;
  readonly points: readonly Point[];
  /** An SVG path of the area, in a box of BOX. */
  readonly path: string;
}

const BOX = { width: 1000, height: 160 } as const;

/** Memory of the host in use: of VMs by their band, then the rest. Free memory is what is above. */
export function hostLayers(ticks: readonly LiveTick[]): Layer[] {
  const first = ticks[0];
  const last = ticks.at(-1);
  if (first === undefined || last === undefined) return [];
  const bands = [...new Set(ticks.flatMap(({ vms }) => vms.map(({ band }) => band)))].sort((a, b) =>
    (a ?? '').localeCompare(b ?? ''),
  );
  const span = Math.max(1, last.time - first.time);
  const total = Math.max(1, ...ticks.map(({ hostTotalBytes }) => hostTotalBytes));
  const x = (time: number): number => ((time - first.time) / span) * BOX.width;
  const y = (bytes: number): number => BOX.height - Math.min(1, bytes / total) * BOX.height;
  const below = ticks.map(() => 0);

  function layer(label: string, colour: number | null, bytes: (tick: LiveTick, at: number) => number): Layer {
    const points = ticks.map((tick, at) => ({ time: tick.time, value: Math.max(0, bytes(tick, at)) }));
    const lower = points.map(({ time }, at) => corner(x(time), y(below[at] ?? 0)));
    points.forEach(({ value }, at) => (below[at] = (below[at] ?? 0) + value));
    const upper = points.map(({ time }, at) => corner(x(time), y(below[at] ?? 0)));
    return { label, colour, points, path: `M${[...upper, ...lower.reverse()].join('L')}Z` };
  }

  const layers = bands.map((band, index) =>
    layer(band === null ? 'VMs' : `VMs in ${band}`, index, ({ vms }) =>
      vms.filter((vm) => vm.band === band).reduce((sum, vm) => sum + vm.allocatedBytes, 0),
    ),
  );
  const used = ({ hostTotalBytes, hostAvailableBytes }: LiveTick): number =>
    hostTotalBytes - hostAvailableBytes;
  return [...layers, layer('the rest', null, (tick, at) => used(tick) - (below[at] ?? 0))];
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
