/** One VM by itself: its last hour, all that the page knows of it, and its events. */
import {
  VM_SERIES,
  vmSeries,
  type LiveHistory,
  type LiveTick,
  type LiveVm,
  type VmSeries,
} from '../../protocol/control/live.js';
import { formatSize } from '../../protocol/control/size.js';
import type { Marks } from './marks.js';
import { Hour } from './model.js';
import { Chart, type Line } from './show-chart.js';
import { byId, make, showBadges, showReading, write } from './show-parts.js';

const NEAR_MS = 15_000;
const LINES: Readonly<Record<VmSeries, Pick<Line, 'label' | 'colour' | 'dashed'>>> = {
  target: { label: 'target', colour: '--target', dashed: true },
  actual: { label: 'balloon', colour: '--actual' },
  allocated: { label: 'on the host', colour: '--allocated' },
  available: { label: 'available in the guest', colour: '--available' },
  working: { label: 'working set', colour: '--working' },
};

export class VmPage {
  readonly #marks: Marks;
  readonly #chart: Chart;
  readonly #onLoaded: () => void;
  #name: string | null = null;
  #hour = new Hour(() => false);
  #cursor: number | null = null;
  #lines: readonly Line[] = [];

  constructor(marks: Marks, onLoaded: () => void) {
    this.#marks = marks;
    this.#onLoaded = onLoaded;
    this.#chart = new Chart(byId('vm-chart'), (at) => {
      this.#cursor = at;
      this.#read();
    });
  }

  /** The VM that is shown; null: none is. */
  get name(): string | null {
    return this.#name;
  }

  /** Shows this VM from now on, its hour as soon as the daemon told it, with `ticks` as far as they reach back; null: no VM. */
  open(name: string | null, ticks: readonly LiveTick[]): void {
    this.#name = name;
    byId('vm-section').hidden = name === null;
    byId('vms-section').hidden = name !== null;
    if (name === null) return;
    const own = new Set(VM_SERIES.map((series) => vmSeries(series, name)));
    const hour = new Hour((series) => own.has(series));
    this.#hour = hour;
    for (const tick of ticks) hour.add(tick);
    write(byId('vm-title'), name);
    void fetch(`history?vm=${encodeURIComponent(name)}`)
      .then((answer) => answer.json() as Promise<LiveHistory>)
      .then((history) => {
        hour.load(history);
        this.#onLoaded();
      })
      // The chart begins with the ticks then.
      .catch(() => undefined);
  }

  add(tick: LiveTick): void {
    if (this.#name !== null) this.#hour.add(tick);
  }

  show({ vms }: LiveTick): void {
    const name = this.#name;
    if (name === null) return;
    const vm = vms.find((one) => one.name === name);
    const { times } = this.#hour;
    this.#lines = VM_SERIES.filter((series) => this.#hour.has(vmSeries(series, name))).map((series) => ({
      ...LINES[series],
      values: this.#hour.values(vmSeries(series, name)),
    }));
    const all = this.#lines.flatMap(({ values }) => values.map((value) => value ?? 0));
    const mostBytes = Math.max(vm?.ramBytes ?? 0, ...all, 1);
    this.#chart.draw({ times, lines: this.#lines, mostBytes, marks: this.#marks.of(name) });
    this.#read();
    write(byId('vm-state'), vm === undefined ? 'not connected' : vm.state);
    write(byId('vm-wrong'), vm?.verdict ?? '');
    if (vm === undefined) byId('vm-badges').replaceChildren();
    else showBadges(byId('vm-badges'), vm);
    this.#facts(vm);
  }

  #facts(vm: LiveVm | undefined): void {
    const facts = vm === undefined ? [] : factsOf(vm);
    byId('vm-facts').replaceChildren(
      ...facts.map(([term, words]) => {
        const pair = make('div');
        pair.append(make('dt', '', term), make('dd', '', words));
        return pair;
      }),
    );
  }

  #read(): void {
    const { times } = this.#hour;
    if (times.length === 0) return;
    const at = Math.min(this.#cursor ?? times.length - 1, times.length - 1);
    const marks = this.#cursor === null ? [] : this.#marks.near(this.#name, times[at] ?? 0, NEAR_MS);
    showReading(byId('vm-reading'), { times, lines: this.#lines }, at, marks);
  }
}

function factsOf(vm: LiveVm): [string, string][] {
  const size = (bytes: number | null): string => (bytes === null ? 'unknown' : formatSize(bytes));
  return [
    ['Memory', size(vm.ramBytes)],
    ['On the host', size(vm.allocatedBytes)],
    ['Balloon', vm.actualUnknown ? 'unknown' : size(vm.actualBytes)],
    ['Target', size(vm.targetBytes)],
    ['Available', size(vm.availableBytes)],
    ...(vm.workingSetBytes === null ? [] : [['Working set', size(vm.workingSetBytes)] as [string, string]]),
    ...(vm.cacheBytes === null ? [] : [['Page cache balloon', size(vm.cacheBytes)] as [string, string]]),
    ...(vm.refilledBytes === 0 ? [] : [['Refilled', size(vm.refilledBytes)] as [string, string]]),
    ...(vm.inhibited === null ? [] : [['Inhibited', vm.inhibited] as [string, string]]),
    ['Band', vm.band ?? 'none'],
    ['Policy', vm.mode ?? 'none'],
    ['Kind', vm.kind],
  ];
}
