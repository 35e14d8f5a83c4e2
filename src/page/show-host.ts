/** The host: its memory over the last hour, by bands, with the reserve, the pressure and what the policy did. */
import type { LiveTick } from '../../protocol/control/live.js';
import type { Marks } from './marks.js';
import { hostLayers, reserveBegins, type Hour } from './model.js';
import { Chart, type Line } from './show-chart.js';
import { byId, showReading } from './show-parts.js';

const COLOURS = 6;
/** Marks so near to the cursor are told of. */
const NEAR_MS = 15_000;

type HostLine = Line & { readonly own?: readonly (number | null)[] };

export class HostView {
  readonly #hour: Hour;
  readonly #marks: Marks;
  readonly #chart: Chart;
  #lines: readonly HostLine[] = [];
  #cursor: number | null = null;

  constructor(hour: Hour, marks: Marks) {
    this.#hour = hour;
    this.#marks = marks;
    this.#chart = new Chart(byId('host'), (at) => {
      this.#cursor = at;
      this.#read();
    });
  }

  show({ hostTotalBytes, policy }: LiveTick): void {
    const { times } = this.#hour;
    this.#lines = this.#linesOf(policy.bands);
    const marks = this.#marks.of(null);
    this.#chart.draw({ times, lines: this.#lines, mostBytes: hostTotalBytes, marks });
    this.#read();
  }

  #linesOf(bands: readonly string[]): HostLine[] {
    const layers = hostLayers(this.#hour, bands).map(({ label, colour, values, tops }): HostLine => ({
      label,
      colour: colour === null ? '--rest' : `--c${colour % COLOURS}`,
      values: tops,
      own: values,
      filled: true,
    }));
    const reserve = this.#hour.values('host reserve');
    const pressure = this.#hour.values('host pressure');
    return [
      // The highest first, since each fills all that is below.
      ...layers.reverse(),
      ...(this.#hour.has('host reserve')
        ? [
            {
              label: 'reserve',
              colour: '--reserve',
              values: reserveBegins(this.#hour),
              own: reserve,
              dashed: true,
            },
          ]
        : []),
      ...(this.#hour.has('host pressure')
        ? [{ label: 'memory pressure', colour: '--pressure', values: pressure, percent: true }]
        : []),
    ];
  }

  #read(): void {
    const { times } = this.#hour;
    if (times.length === 0) return;
    const at = Math.min(this.#cursor ?? times.length - 1, times.length - 1);
    const marks = this.#cursor === null ? [] : this.#marks.near(null, times[at] ?? 0, NEAR_MS);
    showReading(byId('host-reading'), { times, lines: this.#lines }, at, marks);
  }
}
