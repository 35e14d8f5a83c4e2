import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeNotification } from '../../protocol/systemd.js';
import { closeFd } from '../os/fd.js';
import { Poller, READABLE } from '../os/poller.js';
import { bindDatagram, receive } from '../os/socket.js';
import type { Emit } from './event-log.js';
import { isConnection, KEEPER_STOPS } from './fd-store.js';

/** As many as systemd is asked to keep (systemd/balloond.service). */
const MOST_FDS = 16384;
const WATCHDOG_MS = 10_000;
/** A daemon that is not ready after so long hangs, such as on a disk that gives no answer (systemd.service(5), TimeoutStartSec=). */
const START_MS = 90_000;
/** Between the end of a daemon that was not ready and the start of the next; doubled while they end so. After another it is 0. */
const RESTART_MS = 20;
const RESTART_MS_MAX = 2000;

/** Node reads all of these certificates at each start, used or not: a fifth of the time until VMs are served again. */
const WITHOUT = { NODE_EXTRA_CA_CERTS: undefined } as const;

/**
 * Keeps a daemon running where there is no service manager to do it: starts it, starts it again whenever it ends, and
 * holds meanwhile what it was given. It speaks the part of systemd's notification protocol that the daemon does.
 */
export class Keeper {
  readonly #command: readonly string[];
  readonly #program: string;
  readonly #emit: Emit;
  readonly #startMs: number;
  readonly #folder = mkdtempSync(join(tmpdir(), 'balloond-keeper-'));
  readonly #socket: number;
  readonly #poller: Poller;
  readonly #fds = new Map<string, number>();
  #daemon: ChildProcess | null = null;
  #ready = false;
  #everReady = false;
  #fedAt = 0;
  #restartMs = RESTART_MS;
  #goneSaid = false;
  #stopping: NodeJS.Signals | null = null;
  #forwardLater: NodeJS.Signals | null = null;
  #restart: NodeJS.Timeout | null = null;
  #watchdog: NodeJS.Timeout | null = null;
  #ended: (code: number) => void = () => undefined;

  /**
   * `command`: that of the daemon, with its arguments; `program`: the file in it that an upgrade replaces; `startMs`: milliseconds
   * within which the daemon has to be ready.
   */
  constructor(command: readonly string[], program: string, emit: Emit, startMs = START_MS) {
    this.#startMs = startMs;
    this.#command = command;
    this.#program = program;
    this.#emit = emit;
    chmodSync(this.#folder, 0o700);
    this.#socket = bindDatagram(this.#path);
    this.#poller = new Poller(this.#socket, READABLE, () => this.#receive());
  }

  /** Resolves with the exit code when the daemon was stopped by stop(), or cannot be started at all. */
  run(): Promise<number> {
    return new Promise((resolve) => {
      this.#ended = (code) => {
        this.#close();
        resolve(code);
      };
      this.#start();
    });
  }

  /** Ends the daemon and then the keeper: VMs lose their balloon. */
  stop(signal: NodeJS.Signals): void {
    this.#stopping = signal;
    if (this.#restart !== null) clearTimeout(this.#restart);
    writeFileSync(join(this.#folder, KEEPER_STOPS), '');
    if (this.#daemon === null) this.#ended(0);
    else this.#daemon.kill(signal);
  }

  /** Passes a signal on to the daemon, once it is ready: one that starts would be ended by it. */
  forward(signal: NodeJS.Signals): void {
    if (this.#ready && this.#daemon !== null) this.#daemon.kill(signal);
    else this.#forwardLater = signal;
  }

  get #path(): string {
    return join(this.#folder, 'notify');
  }

  #start(): void {
    const names = [...this.#fds.keys()];
    this.#ready = false;
    if (!this.#isThere()) {
      this.#startLater();
      return;
    }
    // LISTEN_PID has to name the daemon, and only it knows its pid.
    this.#daemon = spawn('/bin/sh', ['-c', 'LISTEN_PID=$$ exec "$@"', 'sh', ...this.#command], {
      stdio: ['inherit', 'inherit', 'inherit', ...this.#fds.values()],
      env: {
        ...process.env,
        ...WITHOUT,
        NOTIFY_SOCKET: this.#path,
        BALLOOND_KEEPER: String(process.pid),
        CACHE_DIRECTORY: process.env['CACHE_DIRECTORY'] ?? this.#folder,
        FDSTORE: String(MOST_FDS),
        WATCHDOG_USEC: String(WATCHDOG_MS * 1000),
        LISTEN_FDS: String(names.length),
        LISTEN_FDNAMES: names.join(':'),
      },
    });
    this.#watch(this.#startMs);
    this.#daemon.once('error', (error) => this.#end(null, null, error.message));
    this.#daemon.once('exit', (code, signal) => this.#end(code, signal, null));
  }

  #end(code: number | null, signal: NodeJS.Signals | null, error: string | null): void {
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    this.#watchdog = null;
    this.#daemon = null;
    // What it sent last may still be in the socket.
    this.#receive();
    if (this.#stopping !== null) {
      this.#ended(code ?? 0);
      return;
    }
    // A start is tried until it works, for VMs that wait or may come: what is in its way can be mended.
    if (!this.#everReady && signal === null && ![...this.#fds.keys()].some(isConnection)) {
      this.#ended(code ?? 1);
      return;
    }
    const kept = this.#fds.size;
    this.#emit('daemon-ended', `the daemon ended (${signal ?? code ?? error ?? '?'}) and is started again`, {
      code,
      signal,
      kept,
    });
    this.#startLater();
  }

  #startLater(): void {
    this.#restart = setTimeout(() => this.#start(), this.#ready ? 0 : this.#restartMs);
    if (!this.#ready) this.#restartMs = Math.min(2 * this.#restartMs, RESTART_MS_MAX);
  }

  /** Says once that the program is gone, where Node would say at each try that it lacks a module. */
  #isThere(): boolean {
    const there = existsSync(this.#program);
    if (!there && !this.#goneSaid) {
      const [program, kept] = [this.#program, this.#fds.size];
      const says = `the daemon cannot be started again, since its program ${program} is gone, and its VMs wait: install balloond there again`;
      this.#emit('program-gone', says, { program, kept });
    }
    this.#goneSaid = !there;
    return there;
  }

  #receive(): void {
    const buffer = new Uint8Array(4096);
    for (;;) {
      const fds: number[] = [];
      const got = receive(this.#socket, buffer, 0, buffer.length, fds);
      if (got < 0) return;
      this.#notified(decodeNotification(new TextDecoder().decode(buffer.subarray(0, got))), fds);
      for (const fd of fds) closeFd(fd);
    }
  }

  #notified(said: ReadonlyMap<string, string>, fds: number[]): void {
    const name = said.get('FDNAME') ?? '';
    if (said.get('FDSTORE') === '1' && !this.#fds.has(name) && this.#fds.size < MOST_FDS) {
      const fd = fds.shift();
      if (fd !== undefined) this.#fds.set(name, fd);
    }
    const removed = said.get('FDSTOREREMOVE') === '1' ? this.#fds.get(name) : undefined;
    if (removed !== undefined) {
      closeFd(removed);
      this.#fds.delete(name);
    }
    if (said.get('READY') === '1') this.#nowReady();
    if (said.get('WATCHDOG') === '1') this.#fedAt = performance.now();
  }

  #nowReady(): void {
    this.#ready = true;
    this.#everReady = true;
    this.#restartMs = RESTART_MS;
    if (this.#forwardLater !== null) this.#daemon?.kill(this.#forwardLater);
    this.#forwardLater = null;
    this.#watch(WATCHDOG_MS);
  }

  /** Kills the daemon when it gives no sign of life for so many milliseconds. */
  #watch(afterMs: number): void {
    this.#fedAt = performance.now();
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    this.#watchdog = setInterval(() => {
      if (performance.now() - this.#fedAt < afterMs) return;
      this.#emit('daemon-stuck', 'the daemon gave no sign of life and is killed', { afterMs });
      this.#daemon?.kill('SIGKILL');
    }, afterMs / 10);
  }

  #close(): void {
    this.#poller.close();
    closeFd(this.#socket);
    for (const fd of this.#fds.values()) closeFd(fd);
    this.#fds.clear();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
