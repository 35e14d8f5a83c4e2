/**
 * Commands of balloonctl and balloond wherever somebody reads them, and whether the programs would take them. The tables
 * are the programs' own: `balloonctl help --json`, and commander's of the daemon.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { CommanderError } from 'commander';
import { parseCommandLine, type CommandSpec, type OptionSpec } from '../../src/control/cli/command-line.js';
import { daemonProgram } from '../../src/daemon/options.js';
import type { CommandTable } from '../../src/manual/pages.js';
import { ROOT } from './page.js';

export const TABLE = JSON.parse(
  execFileSync(process.execPath, [join(ROOT, 'out/bin/balloonctl.js'), 'help', '--json'], {
    encoding: 'utf8',
  }),
) as CommandTable;
export const DAEMON_OPTIONS = daemonProgram('0').options;

export type Program = 'balloonctl' | 'balloond';

export interface Invocation {
  readonly program: Program;
  readonly args: readonly string[];
}

/** Where a program begins: its name or file, by itself or under a path. */
const PROGRAM = /(?<![\w.-])(?:[\w./$-]*\/)?(balloonctl|balloond)(?:\.js)?(?=\s|$)/g;
const ENDS = new Set(['|', ';', '&', '&&', '||', '>', '>>', '2>', '2>/dev/null', '<', ')', '#']);

/** Those in what a shell would run, each up to where the next command begins. */
export function invocationsIn(text: string): Invocation[] {
  const lines = text.replaceAll(/\\\n/g, ' ').split('\n');
  return lines.flatMap((line) =>
    [...line.matchAll(PROGRAM)].flatMap(({ index, 0: whole, 1: program }) => {
      if (!isCommand(line.slice(0, index))) return [];
      return [{ program: program as Program, args: words(line.slice(index + whole.length)) }];
    }),
  );
}

/** Whether a shell takes the word after this text for a program. */
function isCommand(before: string): boolean {
  const [last = ''] = before.trim().split(/\s+/).slice(-1);
  return (
    last === '' ||
    /^(sudo|time|node|exec|eval|source|if|then|do|else|until|while|--|&&|\|\||!)$|[;|&(={"]$|^\w+=\S*$/.test(
      last,
    )
  );
}

function words(text: string): string[] {
  const found: string[] = [];
  for (const [, single, double, plain] of text.matchAll(
    /'([^']*)'|"((?:\\.|[^"\\])*)"|([^\s'"|;&)<>]+|[|;&)<>]+)/g,
  )) {
    if (plain !== undefined && ENDS.has(plain)) break;
    if (plain?.startsWith('#') === true) break;
    found.push(single ?? double ?? plain ?? '');
  }
  return found;
}

/** Why the program would not take it; null: it would. Words in capitals stand for values of the right kind. */
export function problemOf({ program, args }: Invocation): string | null {
  return program === 'balloonctl' ? problemOfControl(args) : problemOfDaemon(args);
}

function problemOfControl(args: readonly string[]): string | null {
  const all = [TABLE.options, ...TABLE.commands.map((command) => command.options)];
  const options = Object.fromEntries(all.flatMap((each) => Object.entries<OptionSpec>(each)));
  const filled = args.map((word, index) => {
    const { choices } = options[args[index - 1]?.replace('--', '') ?? ''] ?? {};
    return isPlaceholder(word) ? (choices?.[0] ?? commandChoice(args, index) ?? word) : word;
  });
  try {
    const line = parseCommandLine<CommandSpec>(filled, TABLE.commands, TABLE.options);
    return 'help' in line && !line.asked ? 'no command' : null;
  } catch (error) {
    return (error as Error).message;
  }
}

function commandChoice(args: readonly string[], index: number): string | undefined {
  return TABLE.commands.find(({ name }) => name === args[index - 1])?.choices?.[0];
}

/** `VM`, `SIZE`, `<file>`, `$name`, `{{ $labels.vm }}`, `…`. */
export function isPlaceholder(word: string): boolean {
  return /^([A-Z][A-Z_]*|<.*>|\$.*|\{.*\}|…|\.\.\.)$/.test(word);
}

function problemOfDaemon(args: readonly string[]): string | null {
  const filled = args.map((word, index) => {
    const option = DAEMON_OPTIONS.find(({ long }) => long === args[index - 1]);
    if (!isPlaceholder(word)) return word;
    return option?.argChoices?.[0] ?? (option?.long === '--fd' ? '3' : word);
  });
  const program = daemonProgram('0')
    .exitOverride((error) => {
      throw error;
    })
    .configureOutput({ writeOut: () => undefined, writeErr: () => undefined, outputError: () => undefined });
  try {
    program.parse(filled, { from: 'user' });
    return null;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return null;
    return (error as Error).message;
  }
}

/** As `problemOf`, for words that name a command and may leave out what follows it, as `balloonctl show` in a sentence. */
export function problemOfMention(invocation: Invocation): string | null {
  const problem = problemOf(invocation);
  return problem !== null && /^\S+ needs [A-Z?]+$|^--[a-z-]+ needs a value:/.test(problem) ? null : problem;
}

/**
 * What is wrong with a command that a sentence names: it has not the options that follow it. The sentence goes on with the
 * first word that is no option, value or word in capitals.
 */
export function problemOfSentence(program: Program, rest: string): string | null {
  const [said = ''] = rest.split(/[`'",.:;)(|]/);
  const following = said.trim().split(/\s+/);
  const command =
    program === 'balloonctl' ? TABLE.commands.find(({ name }) => name === following[0]) : undefined;
  const known = new Set(
    program === 'balloond'
      ? DAEMON_OPTIONS.map(({ long }) => long ?? '')
      : Object.keys({ ...TABLE.options, ...command?.options }).map((name) => `--${name}`),
  );
  for (const [index, word] of following.entries()) {
    if (index === 0 && command !== undefined) continue;
    if (word.startsWith('--') && word !== '--help' && !known.has(word))
      return `${[program, command?.name].join(' ').trim()} has no ${word}`;
    const isValue = following[index - 1]?.startsWith('--') === true;
    if (!word.startsWith('--') && !isValue && !isPlaceholder(word)) break;
  }
  return null;
}
