/** What `balloonctl top` shows, as text; no line is wider than the terminal. */
import type { PolicyState, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import type { SORT_KEYS } from './choices.js';
import { compareNames } from './natural-order.js';
import { guestBytes, printable, type Output } from './output.js';
import { alignColumns, columnsOf, count, shorten, shortenNames } from './text.js';

/** The name takes what the other columns leave. */
const NAME_COLUMNS_LEAST = 6;
/** One sample a column. */
const HISTORY_COLUMNS = { least: 4, most: 60 };
const GAP = 2;
const BARS = Array.from('▁▂▃▄▅▆▇█');

export type SortKey = (typeof SORT_KEYS)[number];

const BY: Record<SortKey, (vm: VmView) => number> = {
  name: () => 0,
  memory: guestBytes,
  balloon: ({ balloon, cache }) => balloon.actualBytes + (cache?.actualBytes ?? 0),
  available: (vm) => vm.stats?.['VIRTIO_BALLOON_S_AVAIL'] ?? -1,
};

/** What a row says of a VM by one letter. */
export const MARKS = { I: 'inhibited', P: 'policy paused by hand', F: 'forced' } as const;
type Mark = keyof typeof MARKS;

export interface Screen {
  columns: number;
  rows: number;
}

export interface Seen {
  vms: readonly VmView[];
  policy: PolicyState;
}

/** What each VM's guest had, oldest first. */
export class Samples {
  readonly #bytes = new Map<string, number[]>();

  add(vms: readonly VmView[]): void {
    const names = new Set(vms.map(({ name }) => name));
    for (const name of this.#bytes.keys()) if (!names.has(name)) this.#bytes.delete(name);
    for (const vm of vms) {
      const before = this.#bytes.get(vm.name) ?? [];
      this.#bytes.set(vm.name, [...before, guestBytes(vm)].slice(-HISTORY_COLUMNS.most));
    }
  }

  /** One bar for each of the last `count` samples; the highest is all of its RAM. */
  sparkline({ name, ramBytes }: VmView, count: number): string {
    const most = BARS.length - 1;
    const bar = (bytes: number): number => (ramBytes === 0 ? 0 : Math.round((bytes / ramBytes) * most));
    const bytes = (this.#bytes.get(name) ?? []).slice(-count);
    return bytes.map((each) => BARS[Math.min(most, bar(each))]).join('');
  }
}

/** Those that have the most of `sort` first, then by name; of those whose names contain `filter`. */
export function sortVms(vms: readonly VmView[], sort: SortKey, filter = ''): VmView[] {
  const wanted = filter.toLowerCase();
  return vms
    .filter(({ name }) => printable(name).toLowerCase().includes(wanted))
    .sort((a, b) => BY[sort](b) - BY[sort](a) || compareNames(a.name, b.name));
}

/** Two lines on the host and all VMs. */
export function summaryLines({ vms, policy }: Seen, columns: number): string[] {
  return [hostLine(policy), vmsLine(vms)].map((line) => shorten(line, columns));
}

/** The name fills `nameColumns`; the rest begins two columns after it. */
export interface Row {
  name: string;
  rest: string;
}

export interface Table {
  nameColumns: number;
  head: string;
  /** One for each VM, in their order. */
  rows: Row[];
  /** What the letters of the rows mean; null: there are none. */
  legend: string | null;
}

export function vmTable(
  vms: readonly VmView[],
  policy: PolicyState,
  samples: Samples,
  columns: number,
): Table {
  const cached = vms.some(({ cache }) => cache !== null);
  const forced = new Set(policy.vms.filter(({ force }) => force !== 'none').map(({ name }) => name));
  const marks = vms.map((vm) => marksOf(vm, forced.has(vm.name)));
  const marked = marks.some((own) => own.length > 0);
  const cells = vms.map((vm, n) => {
    const available = vm.stats?.['VIRTIO_BALLOON_S_AVAIL'];
    return [
      vm.verdict === null ? vm.state : `! ${vm.state}`,
      ...(marked ? [(marks[n] ?? []).join('')] : []),
      formatSize(vm.ramBytes),
      formatSize(guestBytes(vm)),
      formatSize(vm.balloon.actualBytes),
      ...(cached ? [vm.cache === null ? '-' : formatSize(vm.cache.actualBytes)] : []),
      available === undefined ? '-' : formatSize(available),
    ];
  });
  const titles = [
    'STATE',
    ...(marked ? ['MARK'] : []),
    ...['RAM', 'GUEST', 'BALLOON'],
    ...(cached ? ['CACHE'] : []),
    'AVAIL',
  ];
  const widths = titles.map((title, column) =>
    cells.reduce((most, row) => Math.max(most, columnsOf(row[column] ?? '')), title.length),
  );
  const free = columns - widths.reduce((sum, width) => sum + width + GAP, 0) - GAP;
  const names = vms.map(({ name }) => printable(name));
  const longest = names.reduce((most, name) => Math.max(most, columnsOf(name)), NAME_COLUMNS_LEAST);
  const nameColumns = Math.max(NAME_COLUMNS_LEAST, Math.min(longest, free - HISTORY_COLUMNS.least));
  const historyColumns = Math.max(HISTORY_COLUMNS.least, Math.min(HISTORY_COLUMNS.most, free - nameColumns));
  const shown = shortenNames(names, nameColumns);
  const align = `<${marked ? '<' : ''}>>>${cached ? '>' : ''}><`;
  const history = 'GUEST HAD'.length > historyColumns ? 'HAD' : 'GUEST HAD';
  const [head = '', ...rests] = alignColumns(
    [
      [...titles, history],
      ...cells.map((row, n) => {
        const vm = vms[n];
        return [...row, vm === undefined ? '' : samples.sparkline(vm, historyColumns)];
      }),
    ],
    align,
  );
  const fit = (line: string): string => shorten(line, columns);
  const rows = rests.map((rest, n) => {
    const name = shorten(shown[n] ?? '', columns);
    const blanks = ' '.repeat(Math.max(0, Math.min(columns, nameColumns) - columnsOf(name)));
    return { name: name + blanks, rest: shorten(rest, columns - nameColumns - GAP) };
  });
  const used = (Object.keys(MARKS) as Mark[]).filter((mark) => marks.some((own) => own.includes(mark)));
  const legend = used.map((mark) => `${mark} ${MARKS[mark]}`).join(', ');
  return {
    nameColumns,
    head: fit(`${'VM'.padEnd(nameColumns + GAP)}${head}`),
    rows,
    legend: legend === '' ? null : fit(legend),
  };
}

/** What is wrong with VMs, one line each. */
export function verdictLines(vms: readonly VmView[], columns: number): string[] {
  return vms
    .filter(({ verdict }) => verdict !== null)
    .map(({ name, verdict }) => shorten(`! ${printable(name)}: ${printable(verdict ?? '')}`, columns));
}

/** All of it, once. */
export function renderTop(
  seen: Seen,
  samples: Samples,
  sort: SortKey,
  columns: number,
  output: Pick<Output, 'paint'>,
): string[] {
  const vms = sortVms(seen.vms, sort);
  const { head, rows, legend } = vmTable(vms, seen.policy, samples, columns);
  return [
    ...summaryLines(seen, columns),
    output.paint('bold', head),
    ...rows.map(({ name, rest }) => `${name}${' '.repeat(GAP)}${rest}`.trimEnd()),
    ...(legend === null ? [] : [legend]),
    ...verdictLines(vms, columns).map((line) => output.paint('red', line)),
  ];
}

function marksOf({ inhibited, policy }: VmView, forced: boolean): Mark[] {
  return [
    ...(inhibited === null ? [] : (['I'] as const)),
    ...(policy?.mode === 'manual' ? (['P'] as const) : []),
    ...(forced ? (['F'] as const) : []),
  ];
}

function hostLine({ host, mode, paused }: PolicyState): string {
  const policy = `policy ${paused ? 'paused' : mode}`;
  if (host === null) return `host: memory unknown; ${policy}`;
  const { totalBytes, availableBytes, pressurePercent } = host;
  const pressure = pressurePercent === null ? '' : `, pressure ${pressurePercent} %`;
  return `host: ${formatSize(availableBytes)} of ${formatSize(totalBytes)} available${pressure}; ${policy}`;
}

function vmsLine(vms: readonly VmView[]): string {
  const total = (of: (vm: VmView) => number): string => formatSize(vms.reduce((sum, vm) => sum + of(vm), 0));
  const ballooned = total(({ balloon, cache }) => balloon.actualBytes + (cache?.actualBytes ?? 0));
  return `${count(vms.length, 'VM')}: RAM ${total((vm) => vm.ramBytes)}, guests have ${total(guestBytes)}, in balloons ${ballooned}`;
}
