/**
 * The commands of balloonctl, one file each, and what they share. bin/balloonctl.ts has the table of commands; it calls this
 * file (parses the command line), then the file of the command with a ControlClient and an output (columns and colours of
 * the terminal), and ends with a code of exit. help, completion and manual pages are made of the same table. text, stat-value
 * and natural-order are for lines and tables; top has a model (keys, selection) and a view. Commander would parse as well, but
 * loading it takes as long as everything else that `balloonctl list` loads together.
 */
import { parseArgs } from 'node:util';
import { nearest } from '../nearest.js';
import { UsageError } from './exit.js';

export interface OptionSpec {
  /** The letter that stands for it behind one dash. */
  readonly short?: string;
  /** Name of its value in the help; without it the option is a switch. */
  readonly value?: string;
  /** All that its value may be. */
  readonly choices?: readonly string[];
  readonly summary: string;
}

/** What a command does, in a word: the help is divided by it. */
type CommandGroup = 'see' | 'order' | 'daemon' | 'print';

export interface CommandSpec {
  readonly name: string;
  readonly group: CommandGroup;
  /** The command on whose line the help has this one. */
  readonly beside?: string;
  /** Names of its operands; one that ends in `?` may be left out. */
  readonly operands: readonly string[];
  /** All that the first operand may be. */
  readonly choices?: readonly string[];
  readonly summary: string;
  /** More of it, where a line does not say all; for `help COMMAND` and the manual page. */
  readonly details?: string;
  readonly options: Readonly<Record<string, OptionSpec>>;
}

/** An option as it is written: the letter that stands for it, and its name. */
export function optionWords(name: string, { short }: OptionSpec): string {
  return short === undefined ? `--${name}` : `-${short}, --${name}`;
}

export type OptionValues = Readonly<Record<string, string | boolean | undefined>>;

/**
 * What is asked for: a command, the version, or help (of one command, or of all), which is bad usage where nobody asked for
 * it.
 */
type CommandLine<Command> =
  | { command: Command; operands: readonly string[]; values: OptionValues }
  | { version: true }
  | { help: Command | null; asked: boolean };

/** `globals` are understood by every command. Throws UsageError. */
export function parseCommandLine<Command extends CommandSpec>(
  args: readonly string[],
  commands: readonly Command[],
  globals: Readonly<Record<string, OptionSpec>>,
): CommandLine<Command> {
  const known = Object.assign({}, ...commands.map(({ options }) => options), globals) as typeof globals;
  const { values, positionals } = parse(args, known, commands);
  if (values['version'] === true) return { version: true };
  const asked = values['help'] === true;
  const [first, ...rest] = positionals;
  const [name, ...operands] = first === 'help' ? rest : positionals;
  if (name === undefined) return { help: null, asked: asked || first === 'help' };
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) {
    const names = commands.map((candidate) => candidate.name);
    const meant = nearest(name, names);
    const step = meant === null ? `commands are ${names.join(', ')}` : `did you mean ${meant}?`;
    throw new UsageError(`unknown command '${name}': ${step}`);
  }
  if (asked || first === 'help') return { help: command, asked: true };
  for (const option of Object.keys(values)) {
    const spec = command.options[option] ?? globals[option];
    if (spec === undefined) throw unknownOption(`--${option}`);
    checkChoice(`--${option}`, values[option], spec.choices);
  }
  const missing = command.operands[operands.length];
  if (missing !== undefined && !missing.endsWith('?'))
    throw new UsageError(`${name} needs ${missing.toUpperCase()}${behindDashes(command, args)}`);
  if (command.operands.some((operand, n) => isVm(operand) && operands[n] === '')) {
    throw new UsageError(`${name} needs a VM: no VM has an empty name`);
  }
  if (operands.length > command.operands.length) throw new UsageError(`too many arguments for ${name}`);
  if (operands[0] !== undefined) checkChoice(name, operands[0], command.choices);
  return { command, operands, values };
}

function checkChoice(what: string, word: unknown, choices: readonly string[] | undefined): void {
  if (choices === undefined || choices.some((choice) => choice === word)) return;
  throw new UsageError(`${what}: write one of ${choices.join(', ')}`);
}

function isVm(operand: string): boolean {
  return operand.replace('?', '') === 'vm';
}

/** A word of the command line that was taken for an option, and may have been meant as the name of a VM. */
function behindDashes(command: CommandSpec | undefined, args: readonly string[], taken?: string): string {
  if (command === undefined || !command.operands.some(isVm) || args.includes('--')) return '';
  const word = taken ?? args.find((arg) => arg.startsWith('-'));
  if (word === undefined) return '';
  const [first = ''] = command.operands;
  const action = isVm(first)
    ? ''
    : ` ${args.find((arg) => !arg.startsWith('-') && arg !== command.name) ?? first}`;
  return `: a VM whose name begins with '-' goes behind '--', as in: balloonctl ${command.name}${action} -- ${word}`;
}

function parse(
  args: readonly string[],
  known: Readonly<Record<string, OptionSpec>>,
  commands: readonly CommandSpec[],
): { values: OptionValues; positionals: string[] } {
  const options = Object.fromEntries(
    Object.entries(known).map(([name, { value, short }]) => [
      name,
      {
        type: value === undefined ? ('boolean' as const) : ('string' as const),
        ...(short !== undefined && { short }),
      },
    ]),
  );
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { ...options, help: { type: 'boolean', short: 'h' }, version: { type: 'boolean' } },
      allowPositionals: true,
    });
    return { values: values, positionals };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
      // It names one letter of `-ram`.
      const named = /'(.*?)'/.exec(message)?.[1] ?? '';
      const word = args.find((arg) => arg.startsWith(named)) ?? named;
      const command = commands.find(({ name }) => args.includes(name));
      throw unknownOption(word, behindDashes(command, args, word));
    }
    // It names the option in quotes, with its value where that is wanted.
    const option = /'(?:-[a-z], )?(--[a-z-]+)/.exec(message)?.[1];
    if (code !== 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE' || option === undefined) throw new UsageError(message);
    const takes = known[option.slice(2)]?.value;
    throw new UsageError(
      takes === undefined
        ? `${option} takes no value: write ${option} alone`
        : `${option} needs a value: write ${option} ${takes.toUpperCase()}, or ${option}=${takes.toUpperCase()} where the value begins with '-'`,
    );
  }
}

function unknownOption(option: string, hint = ''): UsageError {
  return new UsageError(`unknown option '${option}'${hint}`);
}
