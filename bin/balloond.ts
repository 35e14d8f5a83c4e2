#!/usr/bin/env node
import type { DaemonArguments } from '../src/main.js';
import { Signals } from '../src/ops/signals.js';

const signals = new Signals();

interface Options extends DaemonArguments {
  printCapabilities?: true;
  printSchema?: true;
  supervise?: true;
  checkConfig?: true;
}

function fail(reason: string): void {
  for (const line of reason.split('\n')) process.stderr.write(`balloond: ${line}\n`);
  process.exitCode = 1;
}

async function run(main: typeof import('../src/main.js')): Promise<void> {
  const { daemonProgram } = await import('../src/daemon/options.js');
  const program = daemonProgram(main.version());
  const options = program.parse().opts<Options>();
  if (options.printCapabilities) {
    console.log(main.capabilities());
    return;
  }
  if (options.printSchema) {
    console.log(main.configSchema());
    return;
  }
  try {
    if (options.checkConfig) {
      console.log(main.checkConfig(options));
    } else if (options.supervise) process.exitCode = await main.superviseDaemon(options, signals);
    else await main.runDaemon(options, signals);
  } catch (error) {
    fail(main.startupFailure(error));
  }
}

// Not before: without the native helper no module of the daemon can be loaded, and that is to be one line as well.
await import('../src/main.js').then(run, (error: unknown) => {
  if (!(error instanceof Error) || error.name !== 'HelperError') throw error;
  fail(error.message);
});
