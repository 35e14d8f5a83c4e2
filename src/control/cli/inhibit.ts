/** `balloonctl inhibit` and `allow`. */
import type { ControlClient } from '../client.js';
import { carryOut } from './many.js';
import { printable, type Output } from './output.js';
import type { Selection } from './selection.js';

export function inhibit(
  client: ControlClient,
  output: Output,
  selection: Selection,
  reason: string | undefined,
): Promise<void> {
  return carryOut(client, output, selection, async (name) => {
    const vm = await client.inhibit(name, reason);
    const why = printable(vm.inhibited ?? 'no reason given');
    return { vm, lines: [`${printable(vm.name)}: not discarding: ${why}`] };
  });
}

export function allow(client: ControlClient, output: Output, selection: Selection): Promise<void> {
  return carryOut(client, output, selection, async (name) => {
    const vm = await client.allow(name);
    const still = vm.inhibited === null ? 'discarding' : `still not discarding: ${printable(vm.inhibited)}`;
    return { vm, lines: [`${printable(vm.name)}: ${still}`] };
  });
}
