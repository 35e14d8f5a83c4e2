/** The commands that read or change the daemon's state in one step. */
import type { ControlClient } from '../client.js';
import { UnreachableError } from '../client.js';
import { renderEvent } from './event-line.js';
import { printable, type Output } from './output.js';
import { renderVm, statsLines } from './vm-report.js';
import { renderList } from './vm-table.js';

export async function list(client: ControlClient, output: Output): Promise<void> {
  const vms = await client.list();
  if (output.json) output.document(vms);
  else output.print(renderList(vms, output));
}

export async function show(client: ControlClient, output: Output, name: string): Promise<void> {
  const vm = await client.show(name);
  if (output.json) output.document(vm);
  else output.print(renderVm(vm, output));
}

export async function stats(
  client: ControlClient,
  output: Output,
  name: string,
  refresh: boolean,
): Promise<void> {
  const values = await client.stats(name, refresh);
  if (output.json) output.document(values);
  else output.print(statsLines(values).join('\n'));
}

export async function inhibit(
  client: ControlClient,
  output: Output,
  name: string,
  reason: string | undefined,
): Promise<void> {
  const vm = await client.inhibit(name, reason);
  if (output.json) output.document(vm);
  else output.print(`${printable(vm.name)}: not discarding: ${printable(vm.inhibited ?? 'no reason given')}`);
}

export async function allow(client: ControlClient, output: Output, name: string): Promise<void> {
  const vm = await client.allow(name);
  if (output.json) output.document(vm);
  else if (vm.inhibited === null) output.print(`${printable(vm.name)}: discarding`);
  else output.print(`${printable(vm.name)}: still not discarding: ${printable(vm.inhibited)}`);
}

/** Follows until the daemon ends the stream, which it does only when it stops or this reader is too slow. */
export async function events(client: ControlClient, output: Output, follow: boolean): Promise<void> {
  for await (const event of client.events(follow)) {
    if (output.json) output.document(event);
    else output.print(renderEvent(event, output));
  }
  if (follow) throw new UnreachableError('the daemon ended the stream because it stops: follow again later');
}
