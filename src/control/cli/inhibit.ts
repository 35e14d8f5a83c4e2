/** `balloonctl inhibit` and `allow`. */
import type { ControlClient } from '../client.js';
import { printable, type Output } from './output.js';

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
