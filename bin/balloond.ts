#!/usr/bin/env node
import type { DaemonArguments } from '../src/main.js';
import { stderr, stdout } from '../src/os/print.js';

type Options = DaemonArguments & { printCapabilities?: true; supervise?: true; checkConfig?: true };

async function run(main: typeof import('../src/main.js')): Promise<void> {
  const { daemonProgram } = await import('../src/daemon/options.js');
  const program = daemonProgram(main.version());
  const options = program.parse().opts<Options>();
  if (options.printCapabilities) {
    stdout.write(`${main.capabilities()}\n`);
    return;
  }
  if (options.checkConfig && options.config === undefined) {
    program.error('error: --check-config needs --config FILE: without a file there is nothing to check');
  }
  try {
    if (options.checkConfig) {
      main.checkConfig(options.config ?? '');
      stdout.write(`${options.config ?? ''}: nothing wrong\n`);
    } else if (options.supervise) process.exitCode = await main.superviseDaemon(options);
    else await main.runDaemon(options);
  } catch (error) {
    main.reportFailure(error);
    process.exitCode = 1;
  }
}

// Not before: without the native helper no module of the daemon can be loaded, and that is to be one line as well.
await import('../src/main.js').then(run, (error: unknown) => {
  if (!(error instanceof Error) || error.name !== 'HelperError') throw error;
  stderr.write(`balloond: ${error.message}\n`);
  process.exitCode = 1;
});
