/**
 * The daemon as a whole. src/main.ts makes one and calls, in this order: `start` (VMs of the daemon before it are served
 * first, then everything listens), `reload` and `change` as often as somebody asks, `end`. Each VM lives in the fleet
 * (fleet.ts), which is served by the sockets (vmm-sockets.ts) and asked by the control server (../control/server.ts).
 */
import type { DaemonChange, DaemonView, ReloadReport } from '../../protocol/control/schema.js';
import { refusal, type NextStep } from '../../protocol/control/refusal.js';
import { RefusedError, type DaemonControl } from '../control/fleet.js';
import type { Refusal } from '../control/http.js';
import type { MetricsAddress, PageFiles } from '../control/metrics-server.js';
import type { ControlServer } from '../control/server.js';
import { systemdVersion } from '../host/service-manager.js';
import type { EventLog } from '../ops/event-log.js';
import type { LogLevel } from '../../protocol/control/log-levels.js';
import type { LevelledLog } from '../ops/levelled-log.js';
import { createLogger } from '../ops/log.js';
import { ownLastWords } from '../ops/last-words.js';
import type { HistoryMemory } from '../ops/history-memory.js';
import { notify } from '../ops/notify.js';
import { loadProcessMetrics } from '../ops/process-metrics.js';
import { startWatchdog } from '../ops/watchdog.js';
import { onPriorityRefused } from '../os/discard.js';
import { SystemError } from '../os/errors.js';
import { probeDiscard } from '../os/discard.js';
import { probeResident } from '../os/resident.js';
import { NO_KEEPER } from '../os/fd-keeper.js';
import { wallTime } from '../os/clock.js';
import type { LineWriter } from '../os/line-writer.js';
import { KeptConfiguration } from './config/kept.js';
import { VmFleet } from './fleet.js';
import { HandOver } from './hand-over.js';
import { findHolder, handOverFailure, holderNow, partingWords, type Holder } from './holder.js';
import type { DaemonArguments } from './options.js';
import { OrderFiles, stateFolder } from './order-files.js';
import { readAddress, SettingsError } from './settings.js';
import { inALine, SettingsInForce } from './settings-in-force.js';
import { startupFailure } from './startup-failure.js';
import { VmmSockets } from './vmm-sockets.js';

const LISTEN_AGAIN_MS = 2000;

/** What the program is, whichever way it is installed. */
interface Program {
  readonly version: string;
  /** Of the metrics address; read when that is served. */
  readonly pageFiles: () => PageFiles;
}

export class Daemon implements DaemonControl {
  readonly events: EventLog;
  readonly #program: Program;
  readonly #fd: number | undefined;
  readonly #startedAt = wallTime();
  #holder: Holder = findHolder(process.env, systemdVersion);
  readonly #handOver: HandOver;
  readonly #settings: SettingsInForce;
  readonly #log: LevelledLog;
  readonly #orders: OrderFiles;
  readonly #fleet: VmFleet;
  readonly #sockets: VmmSockets;
  #control: ControlServer | null = null;
  #metrics: { close(): Promise<void> } | null = null;
  #history: HistoryMemory | null = null;
  #metricsProblem: { text: string; remedy: NextStep } | null = null;

  /** The log goes to `stderr`, or to the journal. Throws SettingsError or SystemError. */
  constructor(args: DaemonArguments, program: Program, stderr: LineWriter) {
    this.#program = program;
    this.#fd = args.fd;
    this.#handOver = new HandOver(this.#holder, (reason) => {
      this.#lookAtHolder();
      if (this.#holder.by !== null)
        this.events.emit('hand-over-failed', handOverFailure(this.#holder, reason));
    });
    const { store, vmsWait } = this.#handOver;
    this.#settings = new SettingsInForce(args, new KeptConfiguration(store), vmsWait);
    const { config, sockets } = this.#settings.configuration;
    this.#log = createLogger(this.#settings.logLevel, this.#settings.logFormat, stderr);
    const { events, warnings } = this.#handOver.events(this.#log);
    this.events = events;
    ownLastWords(stderr, events.emit);
    for (const warning of warnings) events.emit('events-set-aside', warning);
    onPriorityRefused((error) => {
      events.emit('priority-refused', `discards compete with rings for the processor: ${error.message}`);
    });
    this.#orders = new OrderFiles(store, stateFolder(process.env), {
      byKeeper: this.#holder.by === 'keeper',
    });
    const { version } = program;
    this.#fleet = new VmFleet(config, events, store ?? NO_KEEPER, {
      version,
      orders: this.#orders,
      ownSockets: () => [...this.#sockets.paths, this.#settings.configuration.controlPath],
    });
    const adopt = this.#fleet.adopt.bind(this.#fleet);
    this.#sockets = new VmmSockets(sockets, store, adopt, events.emit);
  }

  /** Serves everything. Throws SystemError, with everything closed again, when that cannot be. */
  async start(): Promise<void> {
    // Later there may be no file descriptor for a first try.
    probeDiscard();
    probeResident();
    const { mistake, instead } = this.#settings;
    if (mistake === null) this.#keepSettings();
    else this.events.emit('config-set-aside', `${mistake}; ${instead}`);
    try {
      // First of all: guests wait.
      const alone = this.#handOver.resumeAll(this.#fleet);
      this.#recallEvents();
      // Before the files that nobody claimed are dropped.
      if (this.#settings.configuration.metrics !== null) this.#history = this.#handOver.history();
      await this.#serveControl();
      if (this.#fd !== undefined) this.#sockets.serveFd(this.#fd);
      this.#sockets.listen(this.#handOver.vmsWait ? this.#listenLater : undefined);
      this.#handOver.adoptRest(this.#fleet, this.#sockets, alone);
      this.#fleet.startPolicy();
      await this.#serveMetrics();
    } catch (error) {
      await this.#close();
      throw error;
    }
    notify({ READY: 1 });
    startWatchdog((withinMs) => {
      this.#lookAtHolder();
      return this.#fleet.discardsMove(withinMs);
    });
    this.#sayStarted();
  }

  /** Ends the process or, where nobody keeps anything, closes everything. */
  async end(signal: NodeJS.Signals): Promise<void> {
    notify({ STOPPING: 1 });
    const { size } = this.#fleet;
    this.#lookAtHolder();
    this.events.emit('daemon-stopping', partingWords(this.#holder, signal, size), { vms: size });
    if (this.#handOver.store !== null && this.#holder.by !== null) {
      // As if it were killed: that way of ending is the one that is tried all the time.
      await this.#fleet.leave();
      await this.#control?.close(size > 0);
      process.exit(0);
    }
    await this.#close();
  }

  view(): DaemonView {
    this.#lookAtHolder();
    const { by, heldOver, problem } = this.#holder;
    const { configuration, mistake } = this.#settings;
    return {
      version: this.#program.version,
      pid: process.pid,
      startedAt: this.#startedAt,
      holder: by,
      heldOver,
      holderProblem: problem?.found ?? null,
      holderRemedy: problem?.remedy ?? null,
      configFiles: [...configuration.files],
      configMistake: mistake,
      problems: this.#problems(),
      control: configuration.controlPath,
      logLevel: this.#log.level as LogLevel,
    };
  }

  #problems(): DaemonView['problems'] {
    const parts = [
      ['orders', this.#orders.problem],
      ['metrics', this.#metricsProblem],
    ] as const;
    const own = parts.flatMap(([part, problem]) => (problem === null ? [] : [{ part, ...problem }]));
    return [...own, ...this.#fleet.problems];
  }

  change({ logLevel: level }: DaemonChange): DaemonView {
    const before = this.#log.level;
    this.#log.level = level;
    if (before !== level)
      this.events.emit('log-level-changed', `the log level is ${level} now`, { before, level });
    return this.view();
  }

  /** Reads all files again. With a mistake, or a socket that cannot be had, nothing changes. */
  reload(dryRun = false): ReloadReport {
    const { file } = this.#settings.configuration;
    try {
      if (dryRun) return this.#settings.changes();
      const changes = this.#settings.reread(({ sockets }) => this.#sockets.change(sockets));
      const { config, files, sockets } = this.#settings.configuration;
      this.#keepSettings();
      this.#log.level = this.#settings.logLevel;
      this.#fleet.configure(config, sockets);
      const keys = changes.map(({ key }) => key).join(', ');
      const said = keys === '' ? 'nothing changed' : `changed: ${keys}`;
      this.events.emit('config-reloaded', said, { file, files, changes });
      return { file, files: [...files], changes };
    } catch (error) {
      if (!(error instanceof SettingsError || error instanceof SystemError)) throw error;
      const why = refusal(
        `${inALine(error)}; the daemon keeps its present configuration`,
        'mend the cause and run balloonctl reload again',
      );
      this.events.emit('config-refused', why, { file });
      throw new RefusedError(why);
    }
  }

  #recallEvents(): void {
    const unknown = this.events.recall();
    if (unknown === 0) return;
    this.events.emit(
      'events-set-aside',
      `of the events that are remembered, this balloond cannot read ${unknown}`,
    );
  }

  #sayStarted(): void {
    const { version } = this.#program;
    const control = this.#settings.configuration.controlPath;
    this.events.emit('daemon-started', `balloond ${version} serves VMs; its control socket is ${control}`, {
      pid: process.pid,
      control,
    });
    this.#sayWhetherHeld();
  }

  #sayWhetherHeld(): void {
    const { by, problem } = this.#holder;
    if (problem !== null) this.events.emit('not-held', `${problem.found}: ${problem.remedy}`, { holder: by });
  }

  /** A keeper may be killed while its daemon runs. */
  #lookAtHolder(): void {
    const now = holderNow(this.#holder, process.env);
    if (now === this.#holder) return;
    this.#holder = now;
    this.#sayWhetherHeld();
  }

  #keepSettings(): void {
    try {
      this.#settings.keep();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.events.emit('hand-over-failed', `the configuration cannot be handed over: ${error.message}`);
    }
  }

  async #serveControl(): Promise<void> {
    const path = this.#settings.configuration.controlPath;
    // Not before: guests wait, and do not need what answers people.
    const { startControlServer } = await import('../control/server.js');
    const serve = async (): Promise<void> => {
      const { version } = this.#program;
      this.#control = await startControlServer(
        path,
        this.#fleet.control,
        this.events,
        version,
        this,
        this.#refused,
      );
    };
    try {
      await serve();
    } catch (error) {
      if (!this.#handOver.vmsWait || !(error instanceof SystemError)) throw error;
      this.#listenLater(error, async () => {
        await serve();
        this.events.emit('listening', `waiting for control clients at ${path}`, { path });
      });
    }
  }

  /** VMs are not to do without their balloon because nobody can look at it. */
  async #serveMetrics(): Promise<void> {
    const { metrics } = this.#settings.configuration;
    const address: MetricsAddress | null = metrics === null ? null : readAddress(metrics);
    const history = this.#history;
    if (address === null || history === null) return;
    const { metricsFailure, startMetricsServer } = await import('../control/metrics-server.js');
    try {
      const pages = this.#program.pageFiles();
      const server = await startMetricsServer(
        address,
        { fleet: this.#fleet.control, history },
        this.events,
        pages,
        this.#refused,
      );
      this.#metrics = server;
      const { host, port } = server.address;
      const at = `${host.includes(':') ? `[${host}]` : host}:${port}`;
      this.events.emit('listening', `serving metrics at http://${at}/`, { host, port });
      void loadProcessMetrics();
    } catch (error) {
      this.#metricsProblem = metricsFailure(error);
      const { text, remedy } = this.#metricsProblem;
      this.events.emit('metrics-unavailable', refusal(text, remedy), { ...address });
    }
  }

  readonly #refused = ({ method, url, status, detail, cause }: Refusal): void => {
    const event =
      status === 503 ? 'control-busy' : status >= 500 ? 'control-request-failed' : 'control-request-refused';
    const fault = cause instanceof Error ? { fault: cause.stack } : {};
    this.events.emit(event, detail, { method, url, status, ...fault });
  };

  /** Tries again until the cause is mended. */
  readonly #listenLater = (error: SystemError, again: () => void | Promise<void>): void => {
    const seconds = LISTEN_AGAIN_MS / 1000;
    this.events.emit('listen-failed', `${startupFailure(error)}; the daemon tries again every ${seconds} s`);
    const attempt = async (): Promise<void> => {
      try {
        await again();
      } catch (failure) {
        if (!(failure instanceof SystemError)) throw failure;
        setTimeout(() => void attempt(), LISTEN_AGAIN_MS);
      }
    };
    setTimeout(() => void attempt(), LISTEN_AGAIN_MS);
  };

  async #close(): Promise<void> {
    await this.#metrics?.close();
    this.#sockets.close();
    await this.#fleet.leave();
    this.#fleet.close();
    await this.#control?.close();
  }
}
