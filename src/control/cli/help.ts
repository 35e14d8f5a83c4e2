/** The help of balloonctl, made from the table of its commands; 80 columns. */
import { optionWords, type CommandSpec, type OptionSpec } from './command-line.js';
import { alignColumns, wrap } from './text.js';

const COLUMNS = 80;

export function helpOfAll(
  program: string,
  summary: string,
  commands: readonly CommandSpec[],
  globals: Readonly<Record<string, OptionSpec>>,
): string {
  const rows = commands
    .filter(({ beside }) => beside === undefined)
    .map((command, index, all) => {
      const line = [command, ...commands.filter(({ beside }) => beside === command.name)];
      const label = command.group === all[index - 1]?.group ? '' : command.group;
      return [
        label,
        [line.map(({ name }) => name).join(', '), ...words(command).slice(1)].join(' '),
        line.map((one) => one.summary).join('; '),
      ];
    });
  const options = optionRows(globals).map(([label = '', text = ''], index) => [
    index === 0 ? 'options' : '',
    label,
    text,
  ]);
  // Without blank lines, all of it fits on 24.
  return [
    `Usage: ${program} [OPTION]... COMMAND, or ${program} help COMMAND`,
    summary,
    ...alignColumns([...rows, ...options], '<<<'),
  ].join('\n');
}

export function helpOfCommand(
  program: string,
  command: CommandSpec,
  globals: Readonly<Record<string, OptionSpec>>,
): string {
  return [
    `Usage: ${program} ${usage(command)}`,
    wrap(plain(command.details ?? command.summary), COLUMNS).join('\n'),
    section('Options', optionRows({ ...command.options, ...globals })),
  ].join('\n\n');
}

function usage(command: CommandSpec): string {
  return [...words(command), ...(Object.keys(command.options).length > 0 ? ['[OPTION]...'] : [])].join(' ');
}

/** The command and its operands, as they are written. */
function words({ name, operands }: CommandSpec): string[] {
  return [
    name,
    ...operands.map((operand) =>
      operand.endsWith('?') ? `[${operand.slice(0, -1).toUpperCase()}]` : operand.toUpperCase(),
    ),
  ];
}

function optionRows(options: Readonly<Record<string, OptionSpec>>): string[][] {
  return Object.entries(options).map(([name, spec]) => {
    const { value, choices, summary } = spec;
    return [
      value === undefined ? optionWords(name, spec) : `${optionWords(name, spec)} ${value.toUpperCase()}`,
      choices === undefined ? summary : `${choices.join(', ')} (${summary})`,
    ];
  });
}

function section(title: string, rows: readonly string[][]): string {
  const labels = Math.max(...rows.map(([label = '']) => label.length));
  const lines = rows.flatMap(([label = '', text = '']) =>
    wrap(text, COLUMNS - labels - 4).map((line, index) => [index === 0 ? label : '', line]),
  );
  return [`${title}:`, ...alignColumns(lines, '<<').map((line) => `  ${line}`)].join('\n');
}

/** Without the marks of what is written as it stands. */
function plain(text: string): string {
  return text.replaceAll('`', '');
}
