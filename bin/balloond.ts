#!/usr/bin/env node
import { Command, InvalidArgumentError, Option } from 'commander';
import {
  capabilities,
  checkConfig,
  DEFAULT_CONTROL_PATH,
  runDaemon,
  startupFailure,
  superviseDaemon,
  version,
  type DaemonArguments,
} from '../src/main.js';
import { LOG_FORMATS, LOG_LEVELS } from '../src/ops/log.js';

function fdNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text))
    throw new InvalidArgumentError('give the number of an open socket, such as 3.');
  return Number(text);
}

const program = new Command('balloond')
  .description('Serves vhost-user memory balloons to VMMs and gives unused guest memory back to the host.')
  .version(version())
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
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .allowExcessArguments(false);

const options = program
  .parse()
  .opts<DaemonArguments & { printCapabilities?: true; supervise?: true; checkConfig?: true }>();
if (options.printCapabilities) {
  console.log(capabilities());
} else if (options.checkConfig && options.config === undefined) {
  program.error('error: --check-config needs --config FILE: without a file there is nothing to check');
} else {
  try {
    if (options.checkConfig) {
      checkConfig(options.config ?? '');
      console.log(`${options.config ?? ''}: nothing wrong`);
    } else if (options.supervise) process.exitCode = await superviseDaemon(options);
    else await runDaemon(options);
  } catch (error) {
    process.stderr.write(`balloond: ${startupFailure(error)}\n`);
    process.exitCode = 1;
  }
}
