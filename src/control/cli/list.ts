/** `balloonctl list`: one line a VM, then what needs attention. */
import { formatSize } from '../../../protocol/control/size.js';
import type { VmView } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import type { LIST_FORMATS } from './choices.js';
import { tellNotes } from './daemon-notes.js';
import { actualWords, guestBytes, guestWords, printable, STATE_STYLES, type Output } from './output.js';
import { isSelected, selectionWords, type Selection } from './selection.js';
import { alignColumns, shorten } from './text.js';

/** The widest the columns after the name get, with their gaps; and that of the page cache balloon. */
const REST_COLUMNS = 66;
const CACHE_COLUMNS = 10;
const NAME_COLUMNS_MIN = 8;

/** The VMs that are listed, and the way to print them. */
interface ListWish {
  readonly selection: Selection;
  /** Null: VMs of any state, or of any kind. */
  readonly state: VmView['state'] | null;
  readonly kind: VmView['kind'] | null;
  readonly format: (typeof LIST_FORMATS)[number];
  /** False: rows alone, without the head and without notes. */
  readonly headers: boolean;
}

const LIST_ALL: ListWish = {
  selection: { pattern: null, band: null },
  state: null,
  kind: null,
  format: 'table',
  headers: true,
};

/** `own`: the version of balloonctl. */
export async function list(
  client: ControlClient,
  output: Output,
  own: string,
  wish: ListWish = LIST_ALL,
): Promise<void> {
  const [all, daemon] = await Promise.all([client.list(), client.daemon()]);
  const { selection, state, kind, format, headers } = wish;
  const vms = all.filter(
    (vm) =>
      isSelected(vm, selection) &&
      (state === null || vm.state === state) &&
      (kind === null || vm.kind === kind),
  );
  const json = output.json || format === 'json';
  if (json) output.document(vms);
  else if (format === 'name') for (const { name } of vms) output.print(printable(name));
  else if (vms.length > 0) output.print(renderList(vms, output, wish));
  else if (headers) output.print(noneWords(all, wish));
  tellNotes(daemon, own, output, json || format === 'name' || !headers);
}

function noneWords(all: readonly VmView[], { selection, state, kind }: ListWish): string {
  if (all.length === 0) return 'no VM is connected: see balloonctl qemu-args for how to connect one';
  const { pattern, band } = selection;
  const words = [
    ...(pattern === null && band === null ? [] : [selectionWords(selection)]),
    ...(state === null ? [] : [`is ${state}`]),
    ...(kind === null ? [] : [`is of the kind ${kind}`]),
  ];
  return `no VM ${words.join(' and ')}: balloonctl list shows all of them`;
}

interface Column {
  readonly head: string;
  readonly align: '<' | '>';
  readonly cell: (vm: VmView) => string;
}

/** Until the VMM has shared its memory, nothing is known of it. */
const known = (vm: VmView, words: (vm: VmView) => string): string => (vm.ramBytes > 0 ? words(vm) : '-');
const STATE: Column = { head: 'STATE', align: '<', cell: ({ state }) => state };
const CACHE: Column = {
  head: 'CACHE',
  align: '>',
  cell: ({ cache }) => (cache === null ? '-' : actualWords(cache)),
};
const SIZES: readonly Column[] = [
  { head: 'RAM', align: '>', cell: (vm) => known(vm, ({ ramBytes }) => formatSize(ramBytes)) },
  { head: 'GUEST HAS', align: '>', cell: (vm) => known(vm, guestWords) },
  { head: 'BALLOON', align: '>', cell: ({ balloon }) => actualWords(balloon) },
  { head: 'TARGET', align: '>', cell: ({ balloon }) => formatSize(balloon.targetBytes) },
];
const AVAILABLE: Column = {
  head: 'AVAILABLE',
  align: '>',
  cell: (vm) => {
    const bytes = vm.stats?.['VIRTIO_BALLOON_S_AVAIL'];
    // The statistics may be older than the balloon.
    return bytes === undefined ? '-' : formatSize(Math.min(bytes, guestBytes(vm)));
  },
};
/** Columns of `-o wide`. */
const WIDE: readonly Column[] = [
  { head: 'ON HOST', align: '>', cell: ({ memory }) => formatSize(memory.allocatedBytes) },
  { head: 'BAND', align: '<', cell: ({ policy }) => printable(policy?.band ?? '-') },
  { head: 'POLICY', align: '<', cell: ({ policy }) => policy?.mode ?? '-' },
  { head: 'KIND', align: '<', cell: ({ kind }) => kind },
  { head: 'PID', align: '>', cell: ({ pid }) => String(pid) },
];

export function renderList(
  vms: readonly VmView[],
  output: Output,
  { format, headers }: Pick<ListWish, 'format' | 'headers'> = LIST_ALL,
): string {
  const cached = vms.some(({ cache }) => cache !== null);
  const restColumns = REST_COLUMNS + (cached ? CACHE_COLUMNS : 0);
  const width = format === 'wide' ? null : output.columns;
  const nameColumns = width === null ? Infinity : Math.max(NAME_COLUMNS_MIN, width - restColumns);
  const columns: readonly Column[] = [
    { head: 'VM', align: '<', cell: ({ name }) => shorten(printable(name), nameColumns) },
    STATE,
    ...SIZES,
    ...(cached ? [CACHE] : []),
    AVAILABLE,
    ...(format === 'wide' ? WIDE : []),
  ];
  const heads = columns.map(({ head }) => head);
  const rows = vms.map((vm) => columns.map(({ cell }) => cell(vm)));
  const [head = '', ...lines] = alignColumns([heads, ...rows], columns.map(({ align }) => align).join(''));
  const painted = lines.map((line, index) => {
    const state = vms[index]?.state ?? 'running';
    return line.replace(` ${state} `, ` ${output.paint(STATE_STYLES[state], state)} `);
  });
  if (!headers) return painted.join('\n');
  return [output.paint('bold', head), ...painted, ...vms.flatMap((vm) => notes(vm, output))].join('\n');
}

function notes(vm: VmView, output: Output): string[] {
  const name = printable(vm.name);
  return [
    ...(vm.verdict === null ? [] : [output.paint('red', `${name}: ${printable(vm.verdict)}`)]),
    ...(vm.inhibited === null
      ? []
      : [output.paint('yellow', `${name}: not discarding: ${printable(vm.inhibited)}`)]),
  ];
}
