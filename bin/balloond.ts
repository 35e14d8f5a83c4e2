import type { DaemonArguments } from '../src/daemon/options.js';
import { Signals } from '../src/ops/signals.js';
import { outliveTerminals } from '../src/os/lost-terminal.js';
import { stderr, stdout } from '../src/os/print.js';
import { version } from '../src/version.js';

const signals = new Signals();
outliveTerminals();

interface Options extends DaemonArguments {
  printCapabilities?: true;
  printSchema?: true;
  supervise?: true;
  checkConfig?: true;
}

async function run(main: typeof import('../src/main.js')): Promise<void> {
  const { daemonProgram } = await import('../src/daemon/options.js');
  const program = daemonProgram(version());
  const options = program.parse().opts<Options>();
  if (options.printCapabilities) {
    stdout.write(`${main.capabilities()}\n`);
    return;
  }
  if (options.printSchema) {
    stdout.write(`${main.configSchema()}\n`);
    return;
  }
  try {
    if (options.checkConfig) {
      stdout.write(`${main.checkConfig(options)}\n`);
      return;
    }
    const code = options.supervise ? await main.superviseDaemon(options, signals) : 0;
    if (!options.supervise) await main.runDaemon(options, signals);
    // Nothing that is still open, such as the journal's socket, is a reason to stay.
    process.exit(code);
  } catch (error) {
    const code = main.reportFailure(error);
    process.exit(options.checkConfig ? 1 : code);
  }
}

// Not before: without the native helper no module of the daemon can be loaded, and that is to be one line as well.
void import('../src/main.js').then(run, (error: unknown) => {
  if (!(error instanceof Error) || error.name !== 'HelperError') throw error;
  stderr.write(`balloond: ${error.message}\n`);
  process.exitCode = 1;
});
