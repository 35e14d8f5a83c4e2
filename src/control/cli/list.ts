/** `balloonctl list`: one line a VM, then what needs attention. */
import { formatSize } from '../../../protocol/control/size.js';
import type { VmView } from '../../../protocol/control/schema.js';
import type { ControlClient } from '../client.js';
import { printable, STATE_STYLES, type Output } from './output.js';
import { alignColumns, shorten } from './text.js';

const HEAD = ['VM', 'STATE', 'RAM', 'GUEST HAS', 'BALLOON', 'TARGET', 'AVAILABLE'];
/** The widest the columns after the name get, with their gaps. */
const REST_COLUMNS = 66;
const NAME_COLUMNS_MIN = 8;

export async function list(client: ControlClient, output: Output): Promise<void> {
  const vms = await client.list();
  if (output.json) output.document(vms);
  else output.print(renderList(vms, output));
}

export function renderList(vms: readonly VmView[], output: Output): string {
  if (vms.length === 0) return 'no VM is connected: see balloonctl qemu-args for how to connect one';
  const nameColumns =
    output.columns === null ? Infinity : Math.max(NAME_COLUMNS_MIN, output.columns - REST_COLUMNS);
  const rows = vms.map((vm) => row(vm, nameColumns));
  const [head = '', ...lines] = alignColumns([HEAD, ...rows], '<<>>>>>');
  const painted = lines.map((line, index) => {
    const state = vms[index]?.state ?? 'running';
    return line.replace(` ${state} `, ` ${output.paint(STATE_STYLES[state], state)} `);
  });
  return [output.paint('bold', head), ...painted, ...vms.flatMap((vm) => notes(vm, output))].join('\n');
}

function row(vm: VmView, nameColumns: number): string[] {
  const availableBytes = vm.stats?.['VIRTIO_BALLOON_S_AVAIL'];
  return [
    shorten(printable(vm.name), nameColumns),
    vm.state,
    formatSize(vm.ramBytes),
    formatSize(Math.max(0, vm.ramBytes - vm.balloon.actualBytes)),
    formatSize(vm.balloon.actualBytes),
    formatSize(vm.balloon.targetBytes),
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
