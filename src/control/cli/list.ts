/** `balloonctl list`: one line a VM, then what needs attention. */
import { formatSize } from '../../../protocol/control/size.js';
import type { VmView } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import { tellNotes } from './daemon-notes.js';
import { actualWords, guestWords, printable, STATE_STYLES, type Output } from './output.js';
import { alignColumns, shorten } from './text.js';

/** The widest the columns after the name get, with their gaps; and that of the page cache balloon. */
const REST_COLUMNS = 66;
const CACHE_COLUMNS = 10;
const NAME_COLUMNS_MIN = 8;

/** `own`: the version of balloonctl. */
export async function list(client: ControlClient, output: Output, own: string): Promise<void> {
  const [vms, daemon] = await Promise.all([client.list(), client.daemon()]);
  if (output.json) output.document(vms);
  else output.print(renderList(vms, output));
  tellNotes(daemon, own, output);
}

export function renderList(vms: readonly VmView[], output: Output): string {
  if (vms.length === 0) return 'no VM is connected: see balloonctl qemu-args for how to connect one';
  const cached = vms.some(({ cache }) => cache !== null);
  const restColumns = REST_COLUMNS + (cached ? CACHE_COLUMNS : 0);
  const nameColumns =
    output.columns === null ? Infinity : Math.max(NAME_COLUMNS_MIN, output.columns - restColumns);
  const own = [
    'VM',
    'STATE',
    'RAM',
    'GUEST HAS',
    'BALLOON',
    'TARGET',
    ...(cached ? ['CACHE'] : []),
    'AVAILABLE',
  ];
  const rows = vms.map((vm) => row(vm, nameColumns, cached));
  const [head = '', ...lines] = alignColumns([own, ...rows], '<<>>>>>>');
  const painted = lines.map((line, index) => {
    const state = vms[index]?.state ?? 'running';
    return line.replace(` ${state} `, ` ${output.paint(STATE_STYLES[state], state)} `);
  });
  return [output.paint('bold', head), ...painted, ...vms.flatMap((vm) => notes(vm, output))].join('\n');
}

function row(vm: VmView, nameColumns: number, cached: boolean): string[] {
  const availableBytes = vm.stats?.['VIRTIO_BALLOON_S_AVAIL'];
  // Until the VMM has shared its memory, nothing is known of it.
  const known = vm.ramBytes > 0;
  return [
    shorten(printable(vm.name), nameColumns),
    vm.state,
    known ? formatSize(vm.ramBytes) : '-',
    known ? guestWords(vm) : '-',
    actualWords(vm.balloon),
    formatSize(vm.balloon.targetBytes),
    ...(cached ? [vm.cache === null ? '-' : actualWords(vm.cache)] : []),
    availableBytes === undefined ? '-' : formatSize(availableBytes),
  ];
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
