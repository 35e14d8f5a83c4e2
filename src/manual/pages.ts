/** The manual pages, made of what --help and the check of the configuration file are made of. */
import { EXIT_WORDS } from '../control/cli/exit.js';
import type { CommandSpec, OptionSpec } from '../control/cli/command-line.js';
import { daemonProgram } from '../daemon/options.js';
import { ENDING_SIGNALS, IGNORED_SIGNALS, RELOAD_SIGNAL } from '../ops/signals.js';
import { ConfigFile } from '../daemon/settings.js';
import { manualPage, type Entry } from './roff.js';
import { BAND_WORDS, FILE_WORDS, POLICY_WORDS, SOCKET_WORDS, VM_WORDS } from './settings-words.js';

/** What `balloonctl help --json` prints. */
export interface CommandTable {
  summary: string;
  commands: readonly CommandSpec[];
  options: Readonly<Record<string, OptionSpec>>;
}

export function daemonPage(version: string): string {
  const options = daemonProgram(version).options.map(({ flags, description, argChoices }) => ({
    term: flags.replace(/<(.*)>/, (_, value: string) => value.toUpperCase()),
    text: sentence(argChoices === undefined ? description : `${description}: ${argChoices.join(', ')}`),
  }));
  return manualPage('balloond', 8, version, 'memory balloon daemon for virtual machines', [
    ['SYNOPSIS', '`balloond` [`--socket-path` PATH | `--fd` N] [`--config` FILE] [OPTION]...'],
    [
      'DESCRIPTION',
      '`balloond` serves vhost-user memory balloons to VMMs such as QEMU, and gives memory that guests do not use back to the host. The daemon stays in the foreground. `balloonctl` commands the daemon.',
      'A VM does not notice when the daemon ends, as long as another process holds its file descriptors: the service manager (a unit with `FileDescriptorStoreMax`), or the keeper that `--supervise` starts. Without either, a VMM whose backend is gone must not be rebooted.',
    ],
    ['OPTIONS', options],
    [
      'SIGNALS',
      [
        {
          term: ENDING_SIGNALS.join(', '),
          text: 'End in order; a daemon that starts does so once it has started. VMs lose their balloon unless the service manager or the keeper holds their file descriptors.',
        },
        {
          term: RELOAD_SIGNAL,
          text: 'Read the configuration file again. A file with a mistake changes nothing. A daemon that starts does so once it has started.',
        },
        { term: 'SIGPIPE', text: 'Nothing.' },
        {
          term: IGNORED_SIGNALS.join(', '),
          text: 'Nothing but a line in the log. SIGUSR1 does not open the inspector of Node.',
        },
        {
          term: 'SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU',
          text: 'Stop until SIGCONT. Guests that need their balloon wait meanwhile, and after 10 seconds the keeper of `--supervise`, or the watchdog of the unit, kills the daemon and starts the next one.',
        },
        {
          term: 'Others',
          text: 'End at once, as a fault would: SIGKILL and SIGABRT, for example. The service manager or the keeper starts the next daemon, which goes on with all VMs.',
        },
        {
          term: 'Sent to the keeper',
          text: 'The keeper of `--supervise` passes SIGHUP on, and ends the daemon and itself by the signals that mean the end. Any signal that ends the keeper in another way takes the balloons of all VMs.',
        },
      ],
    ],
    [
      'EXIT STATUS',
      [
        { term: '0', text: 'The daemon was told to end.' },
        {
          term: '1',
          text: 'The daemon could not start, or `--check-config` found a mistake; a line on stderr says why.',
        },
        { term: '2', text: 'Bad usage.' },
      ],
    ],
    [
      'FILES',
      [
        { term: '/run/balloond/balloond.sock', text: 'Where the service listens for VMMs.' },
        { term: '/run/balloond/control.sock', text: 'Where the service listens for `balloonctl`.' },
      ],
    ],
    ['SEE ALSO', '`balloonctl`(1), `balloond.toml`(5), `journalctl`(1)'],
  ]);
}

export function controlPage(version: string, { summary, commands, options }: CommandTable): string {
  const own = commands.map((command): Entry => ({
    term: usage(command),
    text: sentence(command.details ?? command.summary),
    below: optionEntries(command.options),
  }));
  return manualPage('balloonctl', 1, version, 'command balloond, the memory balloon daemon', [
    ['SYNOPSIS', '`balloonctl` [OPTION]... COMMAND'],
    [
      'DESCRIPTION',
      sentence(summary),
      'Sizes are `512M`, `2G`, `1.5GiB` or plain bytes; K, M, G and T are binary.',
    ],
    ['COMMANDS', own],
    ['OPTIONS', optionEntries(options)],
    ['EXIT STATUS', Object.entries(EXIT_WORDS).map(([term, text]) => ({ term, text: sentence(text) }))],
    ['ENVIRONMENT', [{ term: 'NO_COLOR', text: 'When set, nothing is coloured.' }]],
    ['FILES', [{ term: '/run/balloond/control.sock', text: 'Where the daemon listens.' }]],
    [
      'EXAMPLES',
      'Have a guest keep 1 GiB, and wait until the guest does:',
      { verbatim: 'balloonctl set web-1 --memory 1G --wait' },
    ],
    ['SEE ALSO', '`balloond`(8), `balloond.toml`(5)'],
  ]);
}

export function configPage(version: string): string {
  const { properties: file } = JSON.parse(JSON.stringify(ConfigFile)) as Schema;
  const table = (name: string): Schema => items(file?.[name] ?? {});
  const band = items(table('policy').properties?.['band'] ?? {});
  return manualPage('balloond.toml', 5, version, 'configuration of balloond', [
    [
      'DESCRIPTION',
      'A TOML file that `balloond --config` reads. All keys may be left out but where it says so; flags win over the file. `balloond --check-config --config` FILE says whether it is right, and `balloonctl reload` has the daemon read it again.',
    ],
    ['KEYS', keyEntries(file, FILE_WORDS)],
    ['[[socket]]', 'Any number of sockets for VMMs.', keyEntries(table('socket').properties, SOCKET_WORDS)],
    [
      '[[vm]]',
      'What VMs of some names have, whichever socket they come to.',
      keyEntries(table('vm').properties, VM_WORDS),
    ],
    [
      '[policy]',
      'Who gets memory when the host runs short.',
      keyEntries(table('policy').properties, POLICY_WORDS),
    ],
    ['[[policy.band]]', 'Bands, highest first.', keyEntries(band.properties, BAND_WORDS)],
    [
      'EXAMPLES',
      {
        verbatim: [
          '[[socket]]',
          'path = "/run/balloond/balloond.sock"',
          '',
          '[[vm]]',
          'match = "db-*"',
          'min = "8G"',
        ].join('\n'),
      },
    ],
    ['SEE ALSO', '`balloond`(8), `balloonctl`(1)'],
  ]);
}

/** What is used of JSON Schema. */
interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly const?: string;
  readonly type?: string;
  readonly minimum?: number;
  readonly maximum?: number;
}

function items(schema: Schema): Schema {
  return schema.items ?? schema;
}

function keyEntries(properties: Schema['properties'] = {}, words: Readonly<Record<string, string>>): Entry[] {
  return Object.entries(words).map(([key, text]) => ({
    term: key,
    text: `${text} ${sentence(kind(properties[key] ?? {}))}`,
  }));
}

/** In words, what a value may be. */
function kind({ anyOf, const: only, items: each, type, minimum, maximum }: Schema): string {
  if (only !== undefined) return `\`${only}\``;
  if (anyOf !== undefined) return `one of ${anyOf.map(kind).join(', ')}`;
  if (each !== undefined) return `an array, each ${kind(each)}`;
  if (type === 'boolean') return '`true` or `false`';
  if (type === 'number') return `a number from ${minimum ?? ''} to ${maximum ?? ''}`;
  return `a ${type ?? 'string'}`;
}

function usage({ name, operands }: CommandSpec): string {
  const words = operands.map((word) =>
    word.endsWith('?') ? `[${word.slice(0, -1).toUpperCase()}]` : word.toUpperCase(),
  );
  return [name, ...words].join(' ');
}

function optionEntries(options: Readonly<Record<string, OptionSpec>>): Entry[] {
  return Object.entries(options).map(([name, { value, choices, summary }]) => ({
    term: value === undefined ? `--${name}` : `--${name} ${value.toUpperCase()}`,
    text: sentence(choices === undefined ? summary : `${choices.join(', ')} (${summary})`),
  }));
}

function sentence(text: string): string {
  const capital = text.replace(/^[a-z]+(?= )/, (word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`);
  return /[.:!?]$/.test(capital) ? capital : `${capital}.`;
}
