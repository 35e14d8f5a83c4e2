/** What `balloonctl top` shows, as text; no line is wider than the terminal. */
import type { PolicyState, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';
import type { SORT_KEYS } from './choices.js';
import { guestBytes, printable, type Output } from './output.js';
import { alignColumns, count, shorten } from './text.js';

/** Of all columns but the name and what the guest had, with the gaps between all. */
const FIXED_COLUMNS = 11 + 4 * 8 + 6 * 2;
const CACHE_COLUMNS = 8 + 2;
const NAME_COLUMNS = { least: 6, most: 24 };
/** One sample a column. */
const HISTORY_COLUMNS = { least: 4, usual: 12, most: 60 };
const BARS = Array.from('▁▂▃▄▅▆▇█');

export type SortKey = (typeof SORT_KEYS)[number];

const BY: Record<SortKey, (vm: VmView) => number> = {
  name: () => 0,
  memory: guestBytes,
  balloon: ({ balloon, cache }) => balloon.actualBytes + (cache?.actualBytes ?? 0),
  available: (vm) => vm.stats?.['VIRTIO_BALLOON_S_AVAIL'] ?? -1,
};

export interface Screen {
  columns: number;
  rows: number;
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

/** At most `screen.rows` lines, or all of them where that is Infinity. */
export function renderTop(
  { vms, policy }: { vms: readonly VmView[]; policy: PolicyState },
  samples: Samples,
  sort: SortKey,
  screen: Screen,
  output: Pick<Output, 'paint'>,
): string[] {
  const cached = vms.some(({ cache }) => cache !== null);
  const free = screen.columns - FIXED_COLUMNS - (cached ? CACHE_COLUMNS : 0);
  const nameColumns = within(free - HISTORY_COLUMNS.usual, NAME_COLUMNS);
  const historyColumns = within(free - nameColumns, HISTORY_COLUMNS);
  const sorted = [...vms].sort((a, b) => BY[sort](b) - BY[sort](a) || a.name.localeCompare(b.name));
  const cells = sorted.map((vm) => [
    shorten(printable(vm.name), nameColumns),
    vm.verdict === null ? vm.state : `! ${vm.state}`,
    formatSize(vm.ramBytes),
    formatSize(guestBytes(vm)),
    formatSize(vm.balloon.actualBytes),
    ...(cached ? [vm.cache === null ? '-' : formatSize(vm.cache.actualBytes)] : []),
    vm.stats?.['VIRTIO_BALLOON_S_AVAIL'] === undefined ? '-' : formatSize(vm.stats['VIRTIO_BALLOON_S_AVAIL']),
    samples.sparkline(vm, historyColumns),
  ]);
  const own = ['VM', 'STATE', 'RAM', 'GUEST', 'BALLOON', ...(cached ? ['CACHE'] : []), 'AVAIL', 'GUEST HAD'];
  const [head = '', ...table] = alignColumns([own, ...cells], cached ? '<<>>>>><' : '<<>>>><');
  const top = [hostLine(policy), vmsLine(vms)];
  const left = screen.rows - top.length - 1;
  const shown = table.length <= left ? table : table.slice(0, Math.max(0, left - 1));
  const hidden = table.length - shown.length;
  const notes = sorted
    .filter(({ verdict }) => verdict !== null)
    .map(({ name, verdict }) => `! ${printable(name)}: ${printable(verdict ?? '')}`)
    .slice(0, Math.max(0, left - shown.length));
  const fit = (line: string): string => shorten(line, screen.columns);
  return [
    ...top.map(fit),
    output.paint('bold', fit(head)),
    ...shown.map(fit),
    ...(hidden > 0 ? [fit(`... and ${hidden} more`)] : notes.map((note) => output.paint('red', fit(note)))),
  ].slice(0, screen.rows);
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

function within(value: number, { least, most }: { least: number; most: number }): number {
  return Math.max(least, Math.min(most, value));
}
