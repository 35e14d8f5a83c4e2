#!/usr/bin/env node
import { daemonProgram } from '../src/daemon/options.js';
import {
  capabilities,
  checkConfig,
  runDaemon,
  startupFailure,
  superviseDaemon,
  version,
  type DaemonArguments,
} from '../src/main.js';

const program = daemonProgram(version());
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
