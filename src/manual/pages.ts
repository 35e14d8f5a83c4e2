/**
 * The manual pages, made of what --help and the check of the configuration file are made of, so that they cannot differ.
 * scripts/generate.js calls pages (this file) when the programs are built: daemon-words (signals, exit codes, events), the
 * command tables and the words of each key go in, and roff makes pages of them. Nothing that runs later loads this folder.
 */
import { EXIT_WORDS } from '../control/cli/exit.js';
import { optionWords, type CommandSpec, type OptionSpec } from '../control/cli/command-line.js';
import { daemonProgram } from '../daemon/options.js';
import { ENDING_SIGNALS, IGNORED_SIGNALS, RELOAD_SIGNAL } from '../ops/signals.js';
import { tableSchema, SCHEMA_PATH } from '../daemon/config/json-schema.js';
import { kindWords, type Schema } from '../daemon/config/shape.js';
import { TABLE_WORDS, type KeyWords } from '../daemon/config/words.js';
import {
  EVENT_INTRODUCTION,
  eventEntries,
  LIMIT_INTRODUCTION,
  LIMIT_WORDS,
  METRICS_DROP_IN,
  METRICS_ON_TCP,
} from './daemon-words.js';
import { manualPage, type Entry, type Section } from './roff.js';

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
          text: 'Read the configuration again, drop-ins included. With a mistake in it, nothing changes. A daemon that starts does so once it has started.',
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
        {
          term: '2',
          text: 'Flags or the configuration have a mistake, and no VM waits for the daemon; a line on stderr for each mistake says where. The unit does not try again.',
        },
      ],
    ],
    ['LIMITS', LIMIT_INTRODUCTION, LIMIT_WORDS],
    ['METRICS ON TCP', METRICS_ON_TCP, { verbatim: METRICS_DROP_IN }],
    ['EVENTS', EVENT_INTRODUCTION, eventEntries()],
    [
      'FILES',
      [
        { term: '/run/balloond/balloond.sock', text: 'Where the service listens for VMMs.' },
        { term: '/run/balloond/control.sock', text: 'Where the service listens for `balloonctl`.' },
        { term: '/etc/balloond.toml, /etc/balloond.toml.d', text: 'The configuration: `balloond.toml`(5).' },
        { term: '/var/lib/balloond', text: 'The folder of the file that `record` in `[policy]` names.' },
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
  const tables = TABLE_WORDS.map(({ path, header, text, keys }): Section => {
    const { properties } = tableSchema(path);
    return [header ?? 'KEYS', sentence(text), keyEntries(properties, keys)];
  });
  return manualPage('balloond.toml', 5, version, 'configuration of balloond', [
    ['SYNOPSIS', '`/etc/balloond.toml`, `/etc/balloond.toml.d/*.toml`'],
    [
      'DESCRIPTION',
      'The configuration of `balloond`, in TOML and UTF-8. All keys may be left out unless the text below says otherwise, and so may the file. Flags win over it.',
      '`balloond` reads `/etc/balloond.toml`, or the file that `--config` FILE names, and then the files in the folder of that name with `.d` added (`/etc/balloond.toml.d`, or `FILE.d`) whose names end with `.toml`, in the order of their names. Tables merge key by key, and the file that is read last wins. `[[socket]]` and `[[vm]]` of all files add up. A file with `[[policy.band]]` replaces all bands of the files before it, since the order of bands is their rank.',
      '`balloond --check-config` names every mistake with its file, line and column, and changes nothing. `balloonctl reload` has the daemon read all files again; with a mistake in them, nothing changes.',
    ],
    ...tables,
    [
      'SOCKETS AND THE SERVICE',
      'The packaged service runs `balloond --fd 3`: the service manager holds `/run/balloond/balloond.sock`, and the daemon serves it whatever the configuration says. Each `[[socket]]` is a further socket, which the daemon makes itself. A `[[socket]]` with the path `/run/balloond/balloond.sock` makes none, and its other keys hold for VMs that connect there. The service may make sockets below `/run/balloond` only.',
    ],
    [
      'EXAMPLES',
      {
        verbatim: [
          '[[socket]]',
          'path = "/run/balloond/vmm/cache-balloon.sock"',
          'device = "cache-balloon"',
          '',
          '[[vm]]',
          'match = "db-*"',
          'min = "8G"',
        ].join('\n'),
      },
    ],
    [
      'FILES',
      [
        {
          term: SCHEMA_PATH,
          text: 'The JSON Schema of the file, which editors check it with; `balloond --print-schema` prints it.',
        },
        { term: '/var/lib/balloond', text: 'Where the service may write what `record` names.' },
      ],
    ],
    ['SEE ALSO', '`balloond`(8), `balloonctl`(1)'],
  ]);
}

function keyEntries(
  properties: Schema['properties'] = {},
  words: Readonly<Record<string, KeyWords>>,
): Entry[] {
  return Object.entries(words).map(([key, { text, default: standard }]) => ({
    term: key,
    text: `${text} ${sentence(kindWords(properties[key] ?? {}))}${standard === undefined ? '' : ` The default is \`${standard}\`.`}`,
  }));
}

function usage({ name, operands }: CommandSpec): string {
  const words = operands.map((word) =>
    word.endsWith('?') ? `[${word.slice(0, -1).toUpperCase()}]` : word.toUpperCase(),
  );
  return [name, ...words].join(' ');
}

function optionEntries(options: Readonly<Record<string, OptionSpec>>): Entry[] {
  return Object.entries(options).map(([name, spec]) => {
    const { value, choices, summary } = spec;
    const words = optionWords(name, spec);
    return {
      term: value === undefined ? words : `${words} ${value.toUpperCase()}`,
      text: sentence(choices === undefined ? summary : `${choices.join(', ')} (${summary})`),
    };
  });
}

function sentence(text: string): string {
  const capital = text.replace(/^[a-z]+(?= )/, (word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`);
  return /[.:!?]$/.test(capital) ? capital : `${capital}.`;
}
