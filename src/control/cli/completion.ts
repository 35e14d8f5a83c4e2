/** `balloonctl completion SHELL`: a script for the shell, made of the table of commands. */
import type { SHELLS } from './choices.js';
import type { CommandSpec, OptionSpec } from './command-line.js';

type Options = Readonly<Record<string, OptionSpec>>;
type Writer = (commands: readonly CommandSpec[], globals: Options) => string;

/** Names that need no quoting, one a line. */
const VMS = `balloonctl --json list 2>/dev/null | grep -o '"name":"[A-Za-z0-9._:@+-]*","pid"' | cut -d'"' -f4`;
/** Values of options that are paths. */
const PATHS = ['path', 'file'];

const WRITERS: Readonly<Record<(typeof SHELLS)[number], Writer>> = { bash, zsh, fish };

export function completionScript(
  shell: (typeof SHELLS)[number],
  commands: readonly CommandSpec[],
  globals: Options,
): string {
  return WRITERS[shell](commands, globals);
}

function flags(options: Options): string[] {
  return Object.keys(options).map((name) => `--${name}`);
}

function takesVm({ operands }: CommandSpec): boolean {
  return operands.some((operand) => operand.replace('?', '') === 'vm');
}

/**
 * Cases of a shell in which `before` is the word before, `command` the command: they set `offers`, or `files` where any
 * file will do.
 */
function cases(commands: readonly CommandSpec[], globals: Options): string[] {
  const known: Options = Object.assign({}, ...commands.map(({ options }) => options), globals) as Options;
  const values = Object.entries(known).filter(([, { value }]) => value !== undefined);
  const written = (name: string, { short }: OptionSpec): string =>
    short === undefined ? `--${name}` : `-${short} | --${name}`;
  const chosen = values.flatMap(([name, spec]) =>
    spec.choices === undefined
      ? []
      : [`    ${written(name, spec)}) offers="${spec.choices.join(' ')}"; return ;;`],
  );
  const named = (paths: boolean): string =>
    values
      .filter(([, { value = '', choices }]) => choices === undefined && PATHS.includes(value) === paths)
      .map(([name, spec]) => written(name, spec))
      .join(' | ');
  const own = commands.map((command) => {
    const words = [...(command.choices ?? []), ...flags({ ...command.options, ...globals })].join(' ');
    return `    ${command.name}) offers="${words}${takesVm(command) ? ` $(${VMS})` : ''}" ;;`;
  });
  const all = ['help', ...commands.map(({ name }) => name), ...flags(globals)].join(' ');
  return [
    '  case $before in',
    ...chosen,
    `    ${named(true)}) files=yes; return ;;`,
    `    ${named(false)}) return ;;`,
    '  esac',
    '  case $command in',
    ...own,
    `    *) offers="${all}" ;;`,
    '  esac',
  ];
}

/** A function that sets `command` from the words on the line, given as arguments; then what cases() says. */
function asks(commands: readonly CommandSpec[], globals: Options): string[] {
  return [
    '_balloonctl_words() {',
    '  local word',
    '  for word in "$@"; do',
    `    case $word in ${commands.map(({ name }) => name).join(' | ')}) command=$word; break ;; esac`,
    '  done',
    ...cases(commands, globals),
    '}',
  ];
}

function bash(commands: readonly CommandSpec[], globals: Options): string {
  return [
    '# eval "$(balloonctl completion bash)"',
    ...asks(commands, globals),
    '_balloonctl() {',
    '  local word offers= files= command= typed=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}',
    '  _balloonctl_words "${COMP_WORDS[@]:1:COMP_CWORD-1}"',
    '  COMPREPLY=()',
    '  if [ -n "$files" ]; then',
    '    compopt -o filenames 2>/dev/null',
    '    mapfile -t COMPREPLY < <(compgen -f -- "$typed")',
    '    return',
    '  fi',
    // Not compgen -W, which would run what stands in the words.
    '  for word in $offers; do',
    '    case $word in "$typed"*) COMPREPLY+=("$word") ;; esac',
    '  done',
    '}',
    'complete -F _balloonctl balloonctl',
  ].join('\n');
}

function zsh(commands: readonly CommandSpec[], globals: Options): string {
  return [
    '#compdef balloonctl',
    '# source <(balloonctl completion zsh), or as _balloonctl in a folder of fpath',
    ...asks(commands, globals),
    '_balloonctl() {',
    '  local -a line=("${(@)words[2,CURRENT-1]}")',
    '  local offers= files= command= before=${line[-1]-}',
    '  _balloonctl_words "${(@)line}"',
    '  if [ -n "$files" ]; then _files; else compadd -- ${=offers}; fi',
    '}',
    'if [ "${funcstack[1]-}" = _balloonctl ]; then _balloonctl "$@"; else compdef _balloonctl balloonctl; fi',
  ].join('\n');
}

function fish(commands: readonly CommandSpec[], globals: Options): string {
  const quote = (text: string): string => `'${text.replaceAll(/['\\]/g, '\\$&')}'`;
  const option = (when: string, [name, spec]: [string, OptionSpec]): string => {
    const { value, short, choices, summary } = spec;
    const letter = short === undefined ? '' : `-s ${short} `;
    const takes = value === undefined ? '' : PATHS.includes(value) ? ' -r -F' : ' -x';
    const words = choices === undefined ? '' : ` -a ${quote(choices.join(' '))}`;
    return `complete -c balloonctl ${when}${letter}-l ${name}${takes}${words} -d ${quote(summary)}`;
  };
  const names = commands.map(({ name }) => name).join(' ');
  return [
    '# balloonctl completion fish | source',
    'complete -c balloonctl -f',
    ...Object.entries(globals).map((entry) => option('', entry)),
    ...commands.flatMap((command) => {
      const { name, summary, options, choices } = command;
      const when = `-n '__fish_seen_subcommand_from ${name}' `;
      return [
        `complete -c balloonctl -n 'not __fish_seen_subcommand_from ${names}' -a ${name} -d ${quote(summary)}`,
        ...(choices === undefined ? [] : [`complete -c balloonctl ${when}-a ${quote(choices.join(' '))}`]),
        ...(takesVm(command) ? [`complete -c balloonctl ${when}-a ${quote(`(${VMS})`)}`] : []),
        ...Object.entries(options).map((entry) => option(when, entry)),
      ];
    }),
  ].join('\n');
}
