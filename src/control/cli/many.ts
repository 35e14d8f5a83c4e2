/** A command that is carried out for each of the VMs that are selected. */
import { passedOn, refusal } from '../../../protocol/control/refusal.js';
import type { VmView } from '../../../protocol/control/schema.js';
import { ControlError, type ControlClient } from '../client.js';
import { WaitTimeoutError } from './exit.js';
import { printable, type Output } from './output.js';
import { isSelected, oneName, selectionWords, type Selection } from './selection.js';

/** What a command did to one VM. */
export interface Done {
  readonly vm: VmView;
  readonly lines: readonly string[];
  /** Why the wait for the VM ended too soon. */
  readonly late?: WaitTimeoutError;
}

/**
 * Carries `act` out for each selected VM, all at once (`among` is their number), and prints what came of it: of one VM its document, of several an array. One that
 * refuses keeps no other from it. Throws the error of a VM, or one error that has all of them.
 */
export async function carryOut(
  client: ControlClient,
  output: Output,
  selection: Selection,
  act: (name: string, among: number) => Promise<Done>,
): Promise<void> {
  const one = oneName(selection);
  const names = one === null ? (await selected(client, selection)).map(({ name }) => name) : [one];
  const done: Done[] = [];
  const errors: Error[] = [];
  const take = async (name: string): Promise<void> => {
    try {
      done.push(await act(name, names.length));
    } catch (error) {
      if (one !== null || !(error instanceof ControlError)) throw error;
      errors.push(new ControlError(error.status, passedOn(`${printable(name)}: ${error.message}`)));
    }
  };
  await Promise.all(names.map(take));
  const order = new Map(names.map((name, index) => [name, index]));
  done.sort((a, b) => (order.get(a.vm.name) ?? 0) - (order.get(b.vm.name) ?? 0));
  if (output.json) output.document(one === null ? done.map(({ vm }) => vm) : done[0]?.vm);
  else for (const { lines } of done) for (const line of lines) output.print(line);
  const late = done.flatMap((each) => each.late ?? []);
  const words = (all: readonly Error[]): string => {
    const messages = all.map(({ message }) => message).join('; ');
    return one === null ? `${all.length} of ${names.length} VMs: ${messages}` : messages;
  };
  if (errors.length > 0) throw new ControlError(409, passedOn(words(errors)));
  if (late.length > 0) throw new WaitTimeoutError(passedOn(words(late)));
}

/** Throws ControlError where no VM is selected. */
async function selected(client: ControlClient, selection: Selection): Promise<VmView[]> {
  const vms = await client.list();
  const chosen = vms.filter((vm) => isSelected(vm, selection));
  if (chosen.length > 0) return chosen;
  throw new ControlError(404, refusal(`no VM ${selectionWords(selection)}`, 'see balloonctl list'));
}
