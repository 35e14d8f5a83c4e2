import { readFileSync } from 'node:fs';
import type { DaemonChange, DaemonView, ReloadReport } from '../protocol/control/schema.js';
import { passedFds } from '../protocol/systemd.js';
import { RefusedError } from './control/fleet.js';
import type { Refusal } from './control/http.js';
import {
  metricsFailure,
  startMetricsServer,
  type MetricsAddress,
  type PageFiles,
} from './control/metrics-server.js';
import { startControlServer } from './control/server.js';
import { VmFleet, type LeftAlone } from './daemon/fleet.js';
import { findHolder, partingWords, type Holder } from './daemon/holder.js';
import { ConfigError } from './daemon/config/mistakes.js';
import { configSchemaText } from './daemon/config/json-schema.js';
import { KeptConfiguration } from './daemon/config/kept.js';
import { readConfiguration, withoutFiles, type Configuration } from './daemon/config/read.js';
import { configChanges, readAddress, SettingsError, type ConfigFile } from './daemon/settings.js';
import { OrderFiles, stateFolder } from './daemon/order-files.js';
import { startupFailure } from './daemon/startup-failure.js';
import { VmmSockets } from './daemon/vmm-sockets.js';
import { systemdVersion } from './host/service-manager.js';
import { Keeper } from './ops/keeper.js';
import { createLogger, defaultFormat, type LogFormat, type LogLevel } from './ops/log.js';
import { EventLog, type Emit, type LogSink } from './ops/event-log.js';
import { takeOverEvents, type EventMemory } from './ops/event-memory.js';
import { FdStore } from './ops/fd-store.js';
import { ownLastWords } from './ops/last-words.js';
import { notify } from './ops/notify.js';
import type { Signals } from './ops/signals.js';
import { startWatchdog } from './ops/watchdog.js';
import { onPriorityRefused } from './os/discard.js';
import { SystemError } from './os/errors.js';
import { NO_KEEPER } from './os/fd-keeper.js';
import { wallTime } from './os/clock.js';
import { LineWriter } from './os/line-writer.js';
import { boundPath } from './os/socket.js';

const STDERR = 2;
/** The unit does not start the daemon again after this exit code (RestartPreventExitStatus=). */
const BAD_SETTINGS = 2;
const LISTEN_AGAIN_MS = 2000;

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

export function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  const { version: number } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
  return number;
}

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
 * Runs the daemon until a signal ends it; one that comes while it starts, once it has started. Throws SettingsError or SystemError, with everything closed again,
 * when it cannot start.
 */
export async function runDaemon(args: DaemonArguments, signals: Signals): Promise<void> {
  const ending = signals.ending();
  const holder = findHolder(process.env, systemdVersion);
  const store = openStore(holder, (reason) =>
    events.emit('hand-over-failed', `what comes now cannot be handed over: ${reason}`),
  );
  /** They hang until a daemon serves them: nothing that can be mended later is a reason not to. */
  const vmsWait = store !== null && store.left('connection').length > 0;
  const kept = new KeptConfiguration(store);
  const started = startConfiguration(args, vmsWait ? kept : null);
  let { configuration } = started;
  /** Why the files, as they are now, are not in force; null: they are. */
  let { mistake } = started;
  const { controlPath, metrics } = configuration;
  const format = args.logFormat ?? configuration.config['log-format'] ?? defaultFormat();
  const stderr = new LineWriter(STDERR);
  const log = createLogger(logLevel(args, configuration), format, stderr);
  const startedAt = wallTime();
  const { events, memory, warnings } = goOnWithEvents(log, store);
  ownLastWords(stderr, events.emit);
  if (memory !== null) store?.keep(memory.fd, 'events');
  onPriorityRefused((error) => {
    events.emit('priority-refused', `discards compete with rings for the processor: ${error.message}`);
  });
  const fleet = new VmFleet(configuration.config, events, store ?? NO_KEEPER, {
    version: version(),
    orders: new OrderFiles(store, stateFolder(process.env)),
  });
  const sockets = new VmmSockets(
    configuration.sockets,
    store,
    (fd, socket) => fleet.adopt(fd, socket),
    events.emit,
  );
  let control = null as { close(): Promise<void> } | null;
  const closers: (() => void | Promise<void>)[] = [
    () => control?.close(),
    () => fleet.close(),
    () => sockets.close(),
  ];
  const close = async (): Promise<void> => {
    for (const closer of closers.reverse()) await closer();
  };
  for (const warning of warnings) events.emit('events-set-aside', warning);
  if (mistake !== null) events.emit('config-set-aside', `${mistake}; ${started.instead}`);
  else keepConfiguration();
  try {
    // First of all: guests wait.
    const alone = store === null ? [] : resumeAll(store);
    await startControl();
    if (args.fd !== undefined) sockets.serveFd(args.fd);
    sockets.listen(vmsWait ? listenLater : undefined);
    if (store !== null) adoptLeft(store, alone);
    fleet.startPolicy();
    const address = metrics === null ? null : readAddress(metrics);
    if (address !== null) await serveMetrics(address);
  } catch (error) {
    await close();
    throw error;
  }
  notify({ READY: 1 });
  events.emit('daemon-started', `balloond ${version()}, with its control socket at ${controlPath}, serves`, {
    pid: process.pid,
    control: controlPath,
  });
  if (holder.problem !== null) {
    const { found, remedy } = holder.problem;
    events.emit('not-held', `${found}: ${remedy}`, { holder: holder.by });
  }
  await warnOfInspector(events.emit);
  signals.onIgnored((signal) => events.emit('signal-ignored', ...nothingAt(signal)));
  signals.onReload(() => {
    try {
      reload();
    } catch (error) {
      // The event says it.
      if (!(error instanceof RefusedError)) throw error;
    }
  });
  startWatchdog((withinMs) => fleet.discardsMove(withinMs));
  const signal = await ending;
  notify({ STOPPING: 1 });
  events.emit('daemon-stopping', partingWords(holder, signal, fleet.size), { vms: fleet.size });
  if (store !== null) {
    // As if it were killed: that way of ending is the one that is tried all the time.
    await control?.close();
    process.exit(0);
  }
  await close();

  function refused({ method, url, status, detail, cause }: Refusal): void {
    const event =
      status === 503 ? 'control-busy' : status >= 500 ? 'control-request-failed' : 'control-request-refused';
    const fault = cause instanceof Error ? { fault: cause.stack } : {};
    events.emit(event, detail, { method, url, status, ...fault });
  }

  function view(): DaemonView {
    return {
      version: version(),
      pid: process.pid,
      startedAt,
      holder: holder.by,
      heldOver: holder.heldOver,
      holderProblem: holder.problem?.found ?? null,
      holderRemedy: holder.problem?.remedy ?? null,
      configFiles: [...configuration.files],
      configMistake: mistake,
      control: controlPath,
      logLevel: log.level as LogLevel,
    };
  }

  function change({ logLevel: level }: DaemonChange): DaemonView {
    const before = log.level;
    log.level = level;
    if (before !== level)
      events.emit('log-level-changed', `the log level is ${level} now`, { before, level });
    return view();
  }

  /** VMs are not to do without their balloon because nobody can look at it. */
  async function serveMetrics(address: MetricsAddress): Promise<void> {
    try {
      const server = await startMetricsServer(address, fleet, events, pageFiles(), refused);
      closers.push(() => server.close());
      const { host, port } = server.address;
      events.emit(
        'listening',
        `serving metrics at http://${host.includes(':') ? `[${host}]` : host}:${port}/`,
        { host, port },
      );
    } catch (error) {
      events.emit('metrics-unavailable', metricsFailure(error), { ...address });
    }
  }

  /** Returns those that could not be gone on with. */
  function resumeAll(from: FdStore): LeftAlone[] {
    const states = from.left('state').map((name) => from.claim(name));
    return states.map((fd) => (fd === null ? null : fleet.resume(fd))).filter((left) => left !== null);
  }

  /**
   * Connections of which the daemon before this one had written nothing down yet; what else it left is nobody's, unless
   * a VM waits for another daemon.
   */
  function adoptLeft(from: FdStore, alone: readonly LeftAlone[]): void {
    const kept = alone.map(({ connection }) => connection);
    if (kept.includes(null)) return;
    for (const name of from.left('connection').filter((each) => !kept.includes(each))) {
      const fd = from.claim(name);
      if (fd !== null) fleet.adopt(fd, sockets.settings(boundPath(fd)));
    }
    if (alone.length === 0) from.dropLeft();
  }

  /** Reads all files again. With a mistake, or a socket that cannot be had, nothing changes. */
  function reload(): ReloadReport {
    const { file } = configuration;
    try {
      const next = wantedConfiguration(args);
      if (next.files.length === 0 && configuration.files.length === 0) {
        throw new SettingsError(
          `there is no configuration file to read again: create ${file}, or start balloond with --config FILE`,
        );
      }
      sockets.change(next.sockets);
      const changes = configChanges(inForce(args, configuration), inForce(args, next));
      configuration = next;
      mistake = null;
      keepConfiguration();
      log.level = logLevel(args, configuration);
      fleet.configure(configuration.config, configuration.sockets);
      const keys = changes.map(({ key }) => key).join(', ');
      const said = keys === '' ? 'nothing changed' : `changed: ${keys}`;
      events.emit('config-reloaded', said, { file, files: configuration.files, changes });
      return { file, files: [...configuration.files], changes };
    } catch (error) {
      if (!(error instanceof SettingsError || error instanceof SystemError)) throw error;
      mistake = brief(error);
      const refusal = `${brief(error)}; all stays as it was`;
      events.emit('config-refused', refusal, { file });
      throw new RefusedError(refusal);
    }
  }

  function keepConfiguration(): void {
    try {
      kept.write(configuration);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      events.emit('hand-over-failed', `the configuration cannot be handed over: ${error.message}`);
    }
  }

  async function startControl(): Promise<void> {
    const daemon = { view, change, reload };
    try {
      control = await startControlServer(controlPath, fleet, events, version(), daemon, refused);
    } catch (error) {
      if (!vmsWait || !(error instanceof SystemError)) throw error;
      listenLater(error, async () => {
        control = await startControlServer(controlPath, fleet, events, version(), daemon, refused);
        events.emit('listening', `waiting for control clients at ${controlPath}`, { path: controlPath });
      });
    }
  }

  /** Tries again until the cause is mended. */
  function listenLater(error: SystemError, again: () => void | Promise<void>): void {
    const seconds = LISTEN_AGAIN_MS / 1000;
    events.emit('listen-failed', `${startupFailure(error)}; the daemon tries again every ${seconds} s`);
    const attempt = async (): Promise<void> => {
      try {
        await again();
      } catch (failure) {
        if (!(failure instanceof SystemError)) throw failure;
        setTimeout(() => void attempt(), LISTEN_AGAIN_MS);
      }
    };
    setTimeout(() => void attempt(), LISTEN_AGAIN_MS);
  }
}

interface StartConfiguration {
  readonly configuration: Configuration;
  /** The first mistake of the files, which are not in force then. */
  readonly mistake: string | null;
  /** The configuration that is in force instead, in words. */
  readonly instead: string;
}

/** `kept`: of the daemon before this one, whose VMs wait. Without it, a mistake is thrown (SettingsError). */
function startConfiguration(args: DaemonArguments, kept: KeptConfiguration | null): StartConfiguration {
  try {
    return { configuration: wantedConfiguration(args), mistake: null, instead: '' };
  } catch (error) {
    if (kept === null || !(error instanceof SettingsError)) throw error;
    const before = kept.read();
    const which = before === null ? 'the default settings' : 'the settings of the daemon before it';
    return {
      configuration: before ?? withoutFiles(args),
      mistake: brief(error),
      instead: `this daemon serves the VMs that wait, with ${which}`,
    };
  }
}

/** Throws SettingsError, also where there is nothing to serve. */
function wantedConfiguration(args: DaemonArguments): Configuration {
  const configuration = readConfiguration(args);
  if (configuration.sockets.length > 0 || args.fd !== undefined) return configuration;
  throw new SettingsError(
    `there is nothing to serve: give --socket-path PATH or --fd N, or add a [[socket]] to ${configuration.file}`,
  );
}

/** In a line. */
function brief(error: Error): string {
  return error instanceof ConfigError ? error.brief : startupFailure(error);
}

/** Null when nobody keeps anything for this process. */
function openStore({ by, socket, most }: Holder, failed: (reason: string) => void): FdStore | null {
  return by === null ? null : new FdStore(socket, most, passedFds(process.env, process.pid), failed);
}

/** Events go on where those of the daemon before this one ended, if it left any. Nothing about them ends the daemon. */
function goOnWithEvents(
  log: LogSink,
  store: FdStore | null,
): { events: EventLog; memory: EventMemory | null; warnings: readonly string[] } {
  if (store === null) return { events: new EventLog(log), memory: null, warnings: [] };
  const left = store.left('events').flatMap((name) => store.claim(name) ?? []);
  try {
    const { memory, setAside } = takeOverEvents(left);
    return { events: new EventLog(log, memory), memory, warnings: setAside };
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    const warning = `the events of this daemon are not handed over to the next one: ${error.message}`;
    return { events: new EventLog(log), memory: null, warnings: [warning] };
  }
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
  const format = args.logFormat ?? defaultFormat();
  const stderr = new LineWriter(STDERR);
  const events = new EventLog(createLogger(args.logLevel ?? 'info', format, stderr));
  ownLastWords(stderr, events.emit);
  const own = process.argv.slice(1).filter((argument) => argument !== '--supervise');
  const keeper = new Keeper([process.execPath, ...process.execArgv, ...own], events.emit);
  await warnOfInspector(events.emit);
  signals.onIgnored((signal) => events.emit('signal-ignored', ...nothingAt(signal)));
  signals.onReload(() => keeper.forward('SIGHUP'));
  void ending.then((signal) => keeper.stop(signal));
  return keeper.run();
}

/** Less what flags win over. */
function inForce(args: DaemonArguments, { config }: Configuration): ConfigFile {
  const flags: Partial<Record<keyof ConfigFile, boolean>> = {
    control: args.control !== undefined,
    metrics: args.metrics !== undefined,
    'log-level': args.logLevel !== undefined,
    'log-format': args.logFormat !== undefined,
    socket: namesSockets(args),
  };
  const keys = Object.keys(config) as (keyof ConfigFile)[];
  return Object.fromEntries(keys.filter((key) => flags[key] !== true).map((key) => [key, config[key]]));
}

function namesSockets({ socketPath, cacheSocketPath }: DaemonArguments): boolean {
  return socketPath !== undefined || cacheSocketPath !== undefined;
}

function logLevel(args: DaemonArguments, { config }: Configuration): LogLevel {
  return args.logLevel ?? config['log-level'] ?? 'info';
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
