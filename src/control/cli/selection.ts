/** The VMs that a command is about: one by its name, those whose names match a pattern, those of a band, or all. */
import { globMatches, isPattern } from '../../../protocol/control/glob.js';
import type { VmView } from '../../../protocol/control/schema.js';
import type { OptionValues } from './command-line.js';
import { UsageError } from './exit.js';
import { text } from './option-values.js';
import { printable } from './output.js';

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

/** The end of a sentence whose subject is a VM. */
export function selectionWords({ pattern, band }: Selection): string {
  const named = pattern === null ? '' : `matches ${JSON.stringify(printable(pattern))}`;
  const banded = band === null ? '' : `is in the band ${JSON.stringify(printable(band))}`;
  const both = [named, banded].filter((words) => words !== '').join(' and ');
  return both === '' ? 'is connected' : both;
}
