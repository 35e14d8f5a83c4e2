/** What `balloonctl top` shows, as text; no line is wider than the terminal. */
import type { PolicyState, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import type { SORT_KEYS } from './choices.js';
import { compareNames } from './natural-order.js';
import { actualWords, guestBytes, guestWords, printable, type Output } from './output.js';
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
const MARKS = { I: 'inhibited', P: 'the policy leaves it alone', F: 'forced' } as const;
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
interface Row {
  name: string;
  rest: string;
}

interface Table {
  nameColumns: number;
  head: string;
  /** One for each VM, in their order. */
  rows: Row[];
  /** What the letters of the rows mean; null: there are none. */
  legend: string | null;
}

/** A column of the table, besides the name and the history. */
interface Column {
  title: string;
  align: '<' | '>';
  /** Where a terminal is too narrow, the columns with the least go first. */
  worth: number;
  cell(vm: VmView): string;
}

const wordsColumn = (title: string, worth: number, cell: Column['cell']): Column => ({
  title,
  align: '>',
  worth,
  cell,
});

const sizeColumn = (title: string, worth: number, bytes: (vm: VmView) => number | undefined): Column =>
  wordsColumn(title, worth, (vm) => {
    const size = bytes(vm);
    return size === undefined ? '-' : formatSize(size);
  });

const COLUMNS: readonly Column[] = [
  {
    title: 'STATE',
    align: '<',
    worth: 4,
    cell: ({ verdict, state }) => (verdict === null ? state : `! ${state}`),
  },
  sizeColumn('RAM', 2, ({ ramBytes }) => ramBytes),
  wordsColumn('GUEST', 6, guestWords),
  wordsColumn('BALLOON', 3, ({ balloon }) => actualWords(balloon)),
  wordsColumn('CACHE', 1, ({ cache }) => (cache === null ? '-' : actualWords(cache))),
  sizeColumn('AVAIL', 5, ({ stats }) => stats?.['VIRTIO_BALLOON_S_AVAIL']),
];

/** Cells are as wide as the widest of their column. */
interface Fitted extends Column {
  cells: string[];
  width: number;
}

function fitted(column: Column, vms: readonly VmView[]): Fitted {
  const cells = vms.map((vm) => column.cell(vm));
  const width = cells.reduce((most, cell) => Math.max(most, columnsOf(cell)), column.title.length);
  return { ...column, cells, width };
}

export function vmTable(
  vms: readonly VmView[],
  policy: PolicyState,
  samples: Samples,
  columns: number,
): Table {
  const forced = new Set(policy.vms.filter(({ force }) => force !== 'none').map(({ name }) => name));
  const markColumn: Column = {
    title: 'MARK',
    align: '<',
    worth: 7,
    cell: (vm) => marksOf(vm, forced.has(vm.name)).join(''),
  };
  const [state, ...sizes] = COLUMNS.map((column) => fitted(column, vms));
  const marks = fitted(markColumn, vms);
  let shown = [state, marks, ...sizes].filter((column) => column !== undefined);
  if (marks.cells.every((cell) => cell === '')) shown = shown.filter((column) => column !== marks);
  if (vms.every(({ cache }) => cache === null)) shown = shown.filter(({ title }) => title !== 'CACHE');

  const names = vms.map(({ name }) => printable(name));
  const longest = names.reduce((most, name) => Math.max(most, columnsOf(name)), NAME_COLUMNS_LEAST);
  const free = (): number => columns - shown.reduce((sum, { width }) => sum + GAP + width, 0);
  const historyLeast = GAP + HISTORY_COLUMNS.least;
  const hasHistory = free() >= NAME_COLUMNS_LEAST + historyLeast;
  while (shown.length > 1 && free() < NAME_COLUMNS_LEAST) {
    const least = shown.reduce((worst, column) => (column.worth < worst.worth ? column : worst));
    shown = shown.filter((column) => column !== least);
  }
  const nameColumns = Math.max(
    NAME_COLUMNS_LEAST,
    Math.min(longest, free() - (hasHistory ? historyLeast : 0)),
  );
  const historyColumns = Math.min(HISTORY_COLUMNS.most, free() - nameColumns - GAP);
  const lines = alignColumns(
    [shown.map(({ title }) => title), ...vms.map((_, n) => shown.map(({ cells }) => cells[n] ?? ''))].map(
      (row, n) => {
        if (!hasHistory) return row;
        const vm = vms[n - 1];
        const title = 'GUEST HAD'.length > historyColumns ? 'HAD' : 'GUEST HAD';
        return [...row, vm === undefined ? title : samples.sparkline(vm, historyColumns)];
      },
    ),
    `${shown.map(({ align }) => align).join('')}${hasHistory ? '<' : ''}`,
  );
  const [head = '', ...rests] = lines;
  const short = shortenNames(names, nameColumns);
  const fit = (line: string): string => shorten(line, columns);
  const rows = rests.map((rest, n) => {
    const name = fit(short[n] ?? '');
    const blanks = ' '.repeat(Math.max(0, Math.min(columns, nameColumns) - columnsOf(name)));
    return { name: name + blanks, rest: shorten(rest, columns - nameColumns - GAP) };
  });
  const used = (Object.keys(MARKS) as Mark[]).filter((mark) => marks.cells.join('').includes(mark));
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

/** A daemon of an earlier build tells of no orders. */
function hostLine(seen: Omit<PolicyState, 'orders'> & Partial<PolicyState>): string {
  const { host, mode, paused, orders = [] } = seen;
  const since = orders[0]?.since ?? null;
  const when = since === null ? '' : ` since ${since.replace(/\.\d+Z$/, 'Z')}`;
  const policy = `policy ${paused ? `paused${when}` : mode}`;
  if (host === null) return `host: memory unknown; ${policy}`;
  const { totalBytes, availableBytes, pressurePercent } = host;
  const pressure = pressurePercent === null ? '' : `, pressure ${pressurePercent} %`;
  const of = `${formatSize(availableBytes)} of ${formatSize(totalBytes)}`;
  const whose = host.part === true ? 'memory for VMs' : 'host';
  return `${whose}: ${of} available${pressure}; ${policy}`;
}

function vmsLine(vms: readonly VmView[]): string {
  const total = (of: (vm: VmView) => number): string => formatSize(vms.reduce((sum, vm) => sum + of(vm), 0));
  const ballooned = total(({ balloon, cache }) => balloon.actualBytes + (cache?.actualBytes ?? 0));
  return `${count(vms.length, 'VM')}: RAM ${total((vm) => vm.ramBytes)}, guests have ${total(guestBytes)}, in balloons ${ballooned}`;
}
