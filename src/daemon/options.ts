import { Command, InvalidArgumentError, Option } from 'commander';
import { LOG_FORMATS, LOG_LEVELS } from '../ops/log.js';

export const DEFAULT_CONTROL_PATH = '/run/balloond/control.sock';
export const DAEMON_SUMMARY =
  'Serves vhost-user memory balloons to VMMs and gives unused guest memory back to the host.';

/** The command line of balloond: what --help and its manual page are made of. */
export function daemonProgram(version: string): Command {
  return new Command('balloond')
    .description(DAEMON_SUMMARY)
    .version(version)
    .option('--socket-path <path>', "listen here for VMMs; every connection is one VM's device")
    .option('--cache-socket-path <path>', 'listen here for page cache balloons (virtio id 13)')
    .addOption(
      new Option('--fd <n>', 'use an already-connected (or listening) vhost-user socket')
        .argParser(fdNumber)
        .conflicts('socketPath'),
    )
    .addOption(
      new Option(
        '--supervise',
        'stay, run the daemon as a child and start it again whenever it ends: VMs go on meanwhile',
      ).conflicts('fd'),
    )
    .option('--print-capabilities', "print the backend's capabilities as JSON and exit")
    .addOption(
      new Option(
        '--check-config',
        'say whether --config FILE is right and exit: 0 it is, 1 it is not',
      ).conflicts('supervise'),
    )
    .option('--config <file>', 'TOML; flags win over it')
    .option('--control <path>', `control socket (default ${DEFAULT_CONTROL_PATH})`)
    .option('--metrics <host:port>', 'also serve metrics and a page to look at on TCP (default: not)')
    .addOption(new Option('--log-level <level>', 'least level logged (default info)').choices(LOG_LEVELS))
    .addOption(
      new Option(
        '--log-format <format>',
        'default journal where stderr is the journal, pretty on a terminal, else json',
      ).choices(LOG_FORMATS),
    )
    .configureOutput({
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
