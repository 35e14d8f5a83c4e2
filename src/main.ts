import { readFileSync } from 'node:fs';
import { startControlServer } from './control/server.js';
import { VmFleet } from './daemon/fleet.js';
import { Listener } from './daemon/listener.js';
import { readConfigFile, SettingsError, type ConfigFile, type SocketSettings } from './daemon/settings.js';
import { createLogger, type LogFormat, type LogLevel } from './ops/log.js';
import { EventLog } from './ops/event-log.js';
import { notify } from './ops/notify.js';
import { SystemError } from './os/errors.js';
import { isListening } from './os/socket.js';

export const DEFAULT_CONTROL_PATH = '/run/balloond/control.sock';

/** The command line, parsed. Flags win over the configuration file. */
export interface DaemonArguments {
  socketPath?: string | undefined;
  fd?: number | undefined;
  config?: string | undefined;
  control?: string | undefined;
  logLevel?: LogLevel | undefined;
  logFormat?: LogFormat | undefined;
}

export function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  const { version: number } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
  return number;
}

/** What --print-capabilities prints (docs/interop/vhost-user.rst, "Backend program conventions"). */
export function capabilities(): string {
  return JSON.stringify({ type: 'balloon', features: [] });
}

/**
 * Runs the daemon until SIGTERM or SIGINT. Throws SettingsError or SystemError, with everything closed again,
 * when it cannot start.
 */
export async function runDaemon(args: DaemonArguments): Promise<void> {
  const config: ConfigFile = args.config === undefined ? {} : readConfigFile(args.config);
  const sockets = wantedSockets(args, config);
  const format = args.logFormat ?? config['log-format'] ?? (process.stderr.isTTY ? 'pretty' : 'json');
  const events = new EventLog(createLogger(args.logLevel ?? config['log-level'] ?? 'info', format));
  const fleet = new VmFleet(config, events);
  const controlPath = args.control ?? config.control ?? DEFAULT_CONTROL_PATH;
  const closers: (() => void | Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const closer of closers.reverse()) await closer();
  };
  try {
    const control = await startControlServer(
      controlPath,
      fleet,
      events,
      version(),
      ({ method, url, status, detail, cause }) => {
        const event = status >= 500 ? 'control-request-failed' : 'control-request-refused';
        const fault = cause instanceof Error ? { fault: cause.stack } : {};
        events.emit(event, detail, { method, url, status, ...fault });
      },
    );
    closers.push(() => control.close());
    closers.push(() => fleet.close());
    if (args.fd !== undefined) serveFd(args.fd);
    for (const socket of sockets) listen({ path: socket.path }, socket);
  } catch (error) {
    await close();
    throw error;
  }
  events.emit('daemon-started', `balloond ${version()} serves`, { pid: process.pid, control: controlPath });
  await notify({ READY: 1 });
  const signal = await stopSignal();
  await notify({ STOPPING: 1 });
  const left = fleet.size === 0 ? '' : `; ${fleet.size} VMs lose their balloon and must not be rebooted`;
  events.emit('daemon-stopping', `${signal}${left}`, { vms: fleet.size });
  await close();

  function listen(where: { path: string } | { fd: number }, socket: SocketSettings | null): void {
    const listener = new Listener(
      where,
      (fd) => fleet.adopt(fd, socket),
      (error) => events.emit('vm-dropped', `a VMM could not be served: ${error.message}`),
    );
    closers.push(() => listener.close());
    events.emit('listening', 'waiting for VMMs', where);
  }

  function serveFd(fd: number): void {
    if (isListening(fd)) listen({ fd }, null);
    else fleet.adopt(fd, null);
  }
}

function wantedSockets(args: DaemonArguments, config: ConfigFile): SocketSettings[] {
  if (args.socketPath !== undefined) return [{ path: args.socketPath }];
  if (args.fd !== undefined) return [];
  const sockets = config.socket ?? [];
  if (sockets.length === 0) {
    throw new SettingsError(
      'nothing to serve: give --socket-path PATH, --fd N or a --config FILE with a [[socket]]',
    );
  }
  return sockets;
}

const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: 'run as a user who may write there',
  EADDRINUSE: 'somebody listens there already, is another balloond running?',
  EBADF: 'give the number of an open socket',
  ENAMETOOLONG: 'a socket path has at most 107 bytes',
  ENOENT: 'create its folder first',
  ENOTSOCK: 'give the number of a Unix stream socket',
};

/** One line for stderr: why the daemon could not start, and what to do. */
export function startupFailure(error: unknown): string {
  const reason = error instanceof Error ? error.message : String(error);
  const remedy = error instanceof SystemError ? REMEDIES[error.code] : undefined;
  return remedy === undefined ? reason : `${reason}: ${remedy}`;
}

function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal));
  });
}
