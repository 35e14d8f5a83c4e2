import { Command, InvalidArgumentError, Option } from 'commander';
import { LOG_LEVELS, type LogLevel } from '../../protocol/control/log-levels.js';
import { LOG_FORMATS, type LogFormat } from '../ops/log.js';
import { stderr, stdout } from '../os/print.js';

export const DEFAULT_CONTROL_PATH = '/run/balloond/control.sock';
/** The file that is read when no other is named. It need not exist. */
export const DEFAULT_CONFIG_PATH = '/etc/balloond.toml';
const DAEMON_SUMMARY =
  'Serves vhost-user memory balloons to VMMs and gives unused guest memory back to the host.';

/** The command line, parsed. Flags win over the configuration file. */
export interface DaemonArguments {
  socketPath?: string | undefined;
  cacheSocketPath?: string | undefined;
  fd?: number | undefined;
  config?: string | undefined;
  control?: string | undefined;
  /** HOST:PORT to serve metrics on. */
  metrics?: string | undefined;
  logLevel?: LogLevel | undefined;
  logFormat?: LogFormat | undefined;
}

/** The command line of balloond: what --help and its manual page are made of. */
export function daemonProgram(version: string): Command {
  return new Command('balloond')
    .description(DAEMON_SUMMARY)
    .version(version)
    .option('--socket-path <path>', 'listen for VMMs; every connection is one device')
    .option('--cache-socket-path <path>', 'listen for page cache balloons (virtio id 13)')
    .addOption(
      new Option('--fd <n>', 'use a connected or listening vhost-user socket')
        .argParser(fdNumber)
        .conflicts('socketPath'),
    )
    .addOption(new Option('--supervise', 'stay, and start the daemon whenever it ended').conflicts('fd'))
    .option('--print-capabilities', "print the backend's capabilities as JSON and exit")
    .addOption(
      new Option('--check-config', 'check the configuration and exit: 0 right, 1 wrong').conflicts(
        'supervise',
      ),
    )
    .option('--print-schema', "print the configuration's JSON Schema and exit")
    .option('--config <file>', `TOML; flags win (default ${DEFAULT_CONFIG_PATH})`)
    .option('--control <path>', `control socket, default ${DEFAULT_CONTROL_PATH}`)
    .option('--metrics <host:port>', 'metrics and a page to look at on TCP (default off)')
    .addOption(new Option('--log-level <level>', 'least level logged (default info)').choices(LOG_LEVELS))
    .addOption(
      new Option(
        '--log-format <format>',
        'default journal where stderr is the journal, pretty on a terminal, else json',
      ).choices(LOG_FORMATS),
    )
    .configureOutput({
      writeOut: (text) => stdout.write(text),
      writeErr: (text) => stderr.write(text),
      outputError: (text, write) =>
        write(`${text.trim().replace(/^error: /, 'balloond: ')} (see balloond --help)\n`),
    })
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
    .allowExcessArguments(false);
}

function fdNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text))
    throw new InvalidArgumentError('give the number of an open socket, such as 3.');
  return Number(text);
}
