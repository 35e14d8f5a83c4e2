/** The VMs that a command is about: one by its name, those whose names match a pattern, those of a band, or all. */
import { globMatches, isPattern } from '../../../protocol/control/glob.js';
import { passedOn, refusal } from '../../../protocol/control/refusal.js';
import type { VmView } from '../../../protocol/control/schema.js';
import { ControlError, type ControlClient } from '../client.js';
import type { OptionValues } from './command-line.js';
import { UsageError, WaitTimeoutError } from './exit.js';
import { text } from './option-values.js';
import { printable, type Output } from './output.js';

/** A VM has to match all that is not null. */
export interface Selection {
  readonly pattern: string | null;
  readonly band: string | null;
}

export const SELECTION_OPTIONS = {
  all: { summary: 'for all VMs' },
  band: { value: 'band', summary: 'for the VMs of this band' },
} as const;

/** `vm`: the operand, a name or a pattern; empty where it is left out. Throws UsageError where nothing is selected. */
export function selectionOf(command: string, vm: string, values: OptionValues): Selection {
  const band = text(values, 'band') ?? null;
  const all = values['all'] === true;
  if (all && (vm !== '' || band !== null))
    throw new UsageError('--all cannot be used with VM or --band, since it names all VMs');
  if (!all && vm === '' && band === null) throw new UsageError(`${command} needs VM, --band BAND or --all`);
  return { pattern: vm === '' ? null : vm, band };
}

/** The name of the one VM that is selected; null: there may be several. */
export function oneName({ pattern, band }: Selection): string | null {
  return pattern !== null && band === null && !isPattern(pattern) ? pattern : null;
}

export function isSelected({ name, policy }: VmView, { pattern, band }: Selection): boolean {
  const named = pattern === null || pattern === name || globMatches(pattern, name);
  return named && (band === null || policy?.band === band);
}

/** Throws ControlError where no VM is selected. */
async function selected(client: ControlClient, selection: Selection): Promise<VmView[]> {
  const vms = await client.list();
  const chosen = vms.filter((vm) => isSelected(vm, selection));
  if (chosen.length > 0) return chosen;
  throw new ControlError(404, refusal(`no VM ${selectionWords(selection)}`, 'see balloonctl list'));
}

/** The end of a sentence whose subject is a VM. */
export function selectionWords({ pattern, band }: Selection): string {
  const named = pattern === null ? '' : `matches ${JSON.stringify(printable(pattern))}`;
  const banded = band === null ? '' : `is in the band ${JSON.stringify(printable(band))}`;
  const both = [named, banded].filter((words) => words !== '').join(' and ');
  return both === '' ? 'is connected' : both;
}

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
