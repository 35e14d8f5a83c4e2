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
import { findHolder, handOverFailure, partingWords, type Holder } from './daemon/holder.js';
import { ConfigError } from './daemon/config/mistakes.js';
import { configSchemaText } from './daemon/config/json-schema.js';
import { readConfiguration, type Configuration } from './daemon/config/read.js';
import { Listener } from './daemon/listener.js';
import {
  configChanges,
  parseAddress,
  SettingsError,
  type ConfigFile,
  type SocketSettings,
} from './daemon/settings.js';
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
import { PathTakenError, SystemError, type Standing } from './os/errors.js';
import { closeFd } from './os/fd.js';
import { NO_KEEPER } from './os/fd-keeper.js';
import { wallTime } from './os/clock.js';
import { LineWriter } from './os/line-writer.js';
import { boundPath, isListening } from './os/socket.js';

const STDERR = 2;
/** Where a reload is refused, behind the reason. */
const KEEPS_ITS_OWN =
  'the daemon keeps its present configuration: mend the cause and run balloonctl reload again';

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
  const started = readConfiguration(args);
  let { config, files } = started;
  let sockets = wantedSockets(args, started);
  const { controlPath } = started;
  const metrics = args.metrics ?? config.metrics;
  const metricsAddress = metrics === undefined ? null : parseAddress(metrics);
  const format = args.logFormat ?? config['log-format'] ?? defaultFormat();
  const stderr = new LineWriter(STDERR);
  const log = createLogger(logLevel(args, config), format, stderr);
  const startedAt = wallTime();
  const holder = findHolder(process.env, systemdVersion);
  const store = openStore(holder, (reason) =>
    events.emit('hand-over-failed', handOverFailure(holder, reason)),
  );
  const { events, memory, warnings } = goOnWithEvents(log, store);
  ownLastWords(stderr, events.emit);
  if (memory !== null) store?.keep(memory.fd, 'events');
  onPriorityRefused((error) => {
    events.emit('priority-refused', `discards compete with rings for the processor: ${error.message}`);
  });
  const fleet = new VmFleet(config, events, store ?? NO_KEEPER, { version: version() });
  let closeControl = (): void | Promise<void> => undefined;
  const closers: (() => void | Promise<void>)[] = [];
  const listeners = new Map<string, Listener>();
  /** Of the socket that --fd passed: its path is listened on already. */
  let passedPath: string | null = null;
  const close = async (): Promise<void> => {
    for (const closer of closers.reverse()) await closer();
  };
  for (const warning of warnings) events.emit('events-set-aside', warning);
  try {
    // First of all: guests wait.
    const alone = store === null ? [] : resumeAll(store);
    const daemon = { view, change, reload };
    const control = await startControlServer(controlPath, fleet, events, version(), daemon, refused);
    closeControl = () => control.close();
    closers.push(closeControl);
    closers.push(() => fleet.close());
    closers.push(() => {
      for (const listener of listeners.values()) listener.close();
    });
    if (args.fd !== undefined) serveFd(args.fd);
    const bound = store === null ? new Map<string, number>() : boundSockets(store);
    for (const socket of ownSockets(sockets))
      listen({ path: socket.path, fd: bound.get(socket.path) }, socket);
    if (store !== null) adoptLeft(store, alone);
    fleet.startPolicy();
    if (metricsAddress !== null) await serveMetrics(metricsAddress);
  } catch (error) {
    await close();
    throw error;
  }
  events.emit('daemon-started', `balloond ${version()}, with its control socket at ${controlPath}, serves`, {
    pid: process.pid,
    control: controlPath,
  });
  if (holder.problem !== null) {
    const { found, remedy } = holder.problem;
    events.emit('not-held', `${found}: ${remedy}`, { holder: holder.by });
  }
  notify({ READY: 1 });
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
    await closeControl();
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
      configFiles: [...files],
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
      if (fd !== null) fleet.adopt(fd, sockets.find(({ path }) => path === boundPath(fd)) ?? null);
    }
    if (alone.length === 0) from.dropLeft();
  }

  /** Sockets that a daemon before this one listened on. One that nobody wants any more is closed. */
  function boundSockets(from: FdStore): Map<string, number> {
    const bound = new Map<string, number>();
    for (const name of from.left('listener')) {
      const fd = from.claim(name);
      if (fd === null) continue;
      const path = boundPath(fd);
      if (ownSockets(sockets).some((socket) => socket.path === path)) bound.set(path, fd);
      else closeFd(fd);
    }
    return bound;
  }

  /** Reads all files again. With a mistake, or a socket that cannot be had, nothing changes. */
  function reload(): ReloadReport {
    const { file } = started;
    try {
      const next = readConfiguration(args);
      if (next.files.length === 0 && files.length === 0) {
        throw new SettingsError(
          `there is no configuration file to read again: create ${file}, or start balloond with --config FILE`,
        );
      }
      const wanted = wantedSockets(args, next);
      listenTo(wanted);
      const changes = configChanges(inForce(args, config), inForce(args, next.config));
      ({ config, files } = next);
      sockets = wanted;
      log.level = logLevel(args, config);
      fleet.configure(config, wanted);
      const keys = changes.map(({ key }) => key).join(', ');
      const said = keys === '' ? 'nothing changed' : `changed: ${keys}`;
      events.emit('config-reloaded', said, { file, files, changes });
      return { file, files: [...files], changes };
    } catch (error) {
      if (!(error instanceof SettingsError || error instanceof SystemError)) throw error;
      const refusal = `${error instanceof ConfigError ? error.brief : startupFailure(error)}; ${KEEPS_ITS_OWN}`;
      events.emit('config-refused', refusal, { file });
      throw new RefusedError(refusal);
    }
  }

  function ownSockets(all: readonly SocketSettings[]): SocketSettings[] {
    return all.filter(({ path }) => path !== passedPath);
  }

  /** Those that were listened on before go on; when one cannot be had, all is as before. */
  function listenTo(wanted: readonly SocketSettings[]): void {
    const added = ownSockets(wanted).filter(({ path }) => !listeners.has(path));
    try {
      for (const socket of added) listen({ path: socket.path }, socket);
    } catch (error) {
      for (const { path } of added) unlisten(path);
      throw error;
    }
    for (const path of listeners.keys()) {
      if (!wanted.some((socket) => socket.path === path)) unlisten(path);
    }
  }

  function unlisten(path: string): void {
    listeners.get(path)?.close();
    listeners.delete(path);
  }

  function listen(where: { path?: string; fd?: number | undefined }, socket: SocketSettings | null): void {
    const servedPath = where.path ?? passedPath;
    const listener = new Listener(
      where,
      store ?? NO_KEEPER,
      (fd) => fleet.adopt(fd, sockets.find(({ path }) => path === servedPath) ?? socket),
      (error) => events.emit('vm-dropped', `a VMM could not be served: ${error.message}`),
    );
    if (where.path !== undefined) {
      listeners.set(where.path, listener);
      store?.keep(listener.fd, 'listener');
    } else closers.push(() => listener.close());
    const at = where.path === undefined ? { fd: where.fd } : { path: where.path };
    events.emit('listening', `waiting for VMMs at ${where.path ?? `file descriptor ${where.fd}`}`, at);
  }

  function serveFd(fd: number): void {
    if (!isListening(fd)) {
      fleet.adopt(fd, null);
      return;
    }
    // A [[socket]] with its path says how its VMs are served.
    passedPath = boundPath(fd);
    listen({ fd }, null);
  }
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
function inForce(args: DaemonArguments, config: ConfigFile): ConfigFile {
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

function logLevel(args: DaemonArguments, config: ConfigFile): LogLevel {
  return args.logLevel ?? config['log-level'] ?? 'info';
}

function wantedSockets({ fd }: DaemonArguments, { sockets, file }: Configuration): readonly SocketSettings[] {
  if (sockets.length > 0 || fd !== undefined) return sockets;
  throw new SettingsError(
    `there is nothing to serve: give --socket-path PATH or --fd N, or add a [[socket]] to ${file}`,
  );
}

const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: 'run as a user who may write there',
  EPERM: 'run as a user who may write there',
  EBADF: 'give the number of an open socket',
  ENAMETOOLONG: 'give a path of at most 107 bytes',
  EMFILE: 'let it have more files open (LimitNOFILE= in its unit, ulimit -n)',
  ENOENT: 'create its folder first',
  ENOTDIR: 'give a path whose folder is one',
  EROFS: 'give a path that can be written to',
  ENOTSOCK: 'give the number of a Unix stream socket',
};

/** By what is at a path that cannot be listened on. */
const TAKEN_REMEDIES: Readonly<Record<Standing, string>> = {
  socket: 'stop the process that listens there (another balloond?), or give another path',
  folder: 'a folder is there, give the path of a file in it',
  file: 'a file is there, move it away, or give another path',
  link: 'a symbolic link that leads nowhere is there, move it away, or give another path',
  nothing: 'try again, since the file that was there is gone',
  hidden: 'give a path in a folder that balloond may look into',
};

/** Says on stderr why the daemon could not start and what to do, a line for each mistake; waits for no reader that stalls. */
export function reportFailure(error: unknown): void {
  const stderr = new LineWriter(STDERR);
  for (const line of startupFailure(error).split('\n')) stderr.write(`balloond: ${line}\n`);
  stderr.flush();
}

/** One line for each mistake: why the daemon could not start, and what to do. */
export function startupFailure(error: unknown): string {
  const reason = error instanceof Error ? error.message : String(error);
  if (error instanceof PathTakenError) return `${reason}: ${TAKEN_REMEDIES[error.standing]}`;
  if (!(error instanceof SystemError)) return reason;
  return `${reason}: ${REMEDIES[error.code] ?? 'see the kernel log for more (journalctl -k)'}`;
}
