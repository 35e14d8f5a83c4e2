/**
 * The two ways to run balloond, and what its flags print. bin/balloond.ts parses the command line and calls one of them:
 * `runDaemon` for a daemon (src/daemon/daemon.ts), `superviseDaemon` for the keeper that starts daemons
 * (src/ops/keeper.ts). Both end by a signal; a failure before is said by `reportFailure`.
 */
import { readFileSync } from 'node:fs';
import { RefusedError } from './control/fleet.js';
import type { PageFiles } from './control/metrics-server.js';
import { configSchemaText } from './daemon/config/json-schema.js';
import { readConfiguration } from './daemon/config/read.js';
import { Daemon } from './daemon/daemon.js';
import type { DaemonArguments } from './daemon/options.js';
import { SettingsError } from './daemon/settings.js';
import { startupFailure } from './daemon/startup-failure.js';
import { EventLog, type Emit } from './ops/event-log.js';
import { ownLastWords } from './ops/last-words.js';
import { createLogger, defaultFormat } from './ops/log.js';
import type { Signals } from './ops/signals.js';
import { LineWriter } from './os/line-writer.js';
import { version } from './version.js';

const STDERR = 2;
/** The unit does not start the daemon again after this exit code (RestartPreventExitStatus=). */
const BAD_SETTINGS = 2;

/** The page of the metrics address, as the build leaves it. */
export function pageFiles(): PageFiles {
  const read = (name: string): string => readFileSync(new URL(`../page/${name}`, import.meta.url), 'utf8');
  return {
    '/': { type: 'text/html; charset=utf-8', text: read('index.html') },
    '/page.css': { type: 'text/css; charset=utf-8', text: read('page.css') },
    '/page.js': { type: 'text/javascript; charset=utf-8', text: read('page.js') },
  };
}

/** What --print-capabilities prints (docs/interop/vhost-user.rst, "Backend program conventions"). */
export function capabilities(): string {
  return JSON.stringify({ type: 'balloon', features: [] });
}

/**
 * What --check-config says of a configuration without mistakes. Throws ConfigError with all mistakes for which a daemon
 * with these arguments would not start, as far as they show before it listens.
 */
export function checkConfig(args: DaemonArguments): string {
  const { file, files } = readConfiguration(args);
  if (files.length === 0) return `${file}: there is no such file, so that all settings have their defaults`;
  return files.map((name) => `${name}: nothing wrong`).join('\n');
}

/** What --print-schema prints: the JSON Schema of the configuration file. */
export const configSchema = configSchemaText;

/**
 * Runs the daemon until a signal ends it; one that comes while the daemon starts, once it has started. Throws
 * SettingsError or SystemError, with everything closed again, when it cannot start.
 */
export async function runDaemon(args: DaemonArguments, signals: Signals): Promise<void> {
  const ending = signals.ending();
  const daemon = new Daemon(args, { version: version(), pageFiles }, new LineWriter(STDERR));
  await daemon.start();
  await warnOfInspector(daemon.events.emit);
  signals.onIgnored((signal) => daemon.events.emit('signal-ignored', ...nothingAt(signal)));
  signals.onReload(() => {
    try {
      daemon.reload();
    } catch (error) {
      // The event says it.
      if (!(error instanceof RefusedError)) throw error;
    }
  });
  await daemon.end(await ending);
}

function nothingAt(signal: NodeJS.Signals): [message: string, fields: Record<string, unknown>] {
  return [`${signal} does nothing here: balloond(8) says which signals do something`, { signal }];
}

/** What an environment that was made for other programs can bring along. */
async function warnOfInspector(emit: Emit): Promise<void> {
  const options = [...process.execArgv, process.env['NODE_OPTIONS'] ?? ''].join(' ');
  if (!options.includes('--inspect')) return;
  const { url } = await import('node:inspector');
  const at = url();
  if (at === undefined) return;
  emit(
    'inspector-open',
    `Node's inspector is open at ${at}: start balloond without --inspect in NODE_OPTIONS`,
  );
}

/** Keeps a daemon with these arguments running until a signal ends it; resolves with the exit code. */
export async function superviseDaemon(args: DaemonArguments, signals: Signals): Promise<number> {
  const ending = signals.ending();
  const { Keeper } = await import('./ops/keeper.js');
  const format = args.logFormat ?? defaultFormat();
  const stderr = new LineWriter(STDERR);
  const events = new EventLog(createLogger(args.logLevel ?? 'info', format, stderr));
  ownLastWords(stderr, events.emit);
  const own = process.argv.slice(1).filter((argument) => argument !== '--supervise');
  const [program = ''] = own;
  const keeper = new Keeper([process.execPath, ...process.execArgv, ...own], program, events.emit);
  await warnOfInspector(events.emit);
  signals.onIgnored((signal) => events.emit('signal-ignored', ...nothingAt(signal)));
  signals.onReload(() => keeper.forward('SIGHUP'));
  void ending.then((signal) => keeper.stop(signal));
  return keeper.run();
}

/**
 * Says on stderr why the daemon could not start and what to do, a line for each mistake; waits for no reader that stalls.
 * Returns the exit code: 2 when the next start would end the same way.
 */
export function reportFailure(error: unknown): number {
  const stderr = new LineWriter(STDERR);
  for (const line of startupFailure(error).split('\n')) stderr.write(`balloond: ${line}\n`);
  stderr.flush();
  return error instanceof SettingsError ? BAD_SETTINGS : 1;
}
