// The real daemon as a process of its own, in a folder of its own, and balloonctl to command it.
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmStats, VmView, DaemonEvent } from '../../protocol/control/schema.js';
import { ControlClient } from '../../src/control/client.js';
import { PATIENCE_MS } from './deadline.js';

export const BIN = join(import.meta.dirname, '../../bin');

export interface CtlResult {
  code: number;
  stdout: string;
  stderr: string;
}

export class DaemonProcess {
  readonly folder: string;
  readonly child: ChildProcess;
  log = '';

  private constructor(folder: string, child: ChildProcess) {
    this.folder = folder;
    this.child = child;
    child.stderr?.setEncoding('utf8');
    child.stderr?.on('data', (text: string) => (this.log += text));
    process.on('exit', this.#killAtExit);
  }

  /**
   * `config`: a TOML file that names its sockets; `{folder}` in it stands for the daemon's folder. `supervise`: by a
   * keeper, which is the child then. `metrics`: also on TCP, at metricsUrl. `program`: another build. `folder`: that of a daemon
   * before it. `state`: its state directory; `within`: the command that runs it, such as one that makes a mount.
   */
  static async start(
    options: {
      config?: string;
      logLevel?: string;
      supervise?: boolean;
      metrics?: boolean;
      program?: string;
      folder?: string;
      state?: string;
      within?: readonly string[];
    } = {},
  ): Promise<DaemonProcess> {
    const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'balloond-'));
    const args = [
      options.program ?? join(BIN, 'balloond.js'),
      '--control',
      join(folder, 'control.sock'),
      '--log-format',
      'json',
    ];
    args.push('--log-level', options.logLevel ?? 'info');
    if (options.supervise === true) args.push('--supervise');
    if (options.metrics === true) args.push('--metrics', '127.0.0.1:0');
    if (options.config === undefined) {
      // Nor the file of the machine that it runs on.
      args.push('--socket-path', join(folder, 'vhost.sock'), '--config', '/dev/null');
    } else {
      writeFileSync(join(folder, 'balloond.toml'), options.config.replaceAll('{folder}', folder));
      args.push('--config', join(folder, 'balloond.toml'));
    }
    const daemon = new DaemonProcess(
      folder,
      // A test that is killed takes its daemon along.
      spawn('setpriv', ['--pdeathsig', 'KILL', ...(options.within ?? []), process.execPath, ...args], {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { ...process.env, ...(options.state !== undefined && { STATE_DIRECTORY: options.state }) },
      }),
    );
    for (let waited = 0; !daemon.log.includes('"daemon-started"'); waited += 20) {
      if (waited > PATIENCE_MS || daemon.child.exitCode !== null) {
        await daemon.stop();
        throw new Error(`the daemon does not start: ${daemon.log}`);
      }
      await sleep(20);
    }
    return daemon;
  }

  get controlPath(): string {
    return join(this.folder, 'control.sock');
  }

  get metricsUrl(): string {
    const told = this.log.matchAll(/"event":"listening","host":"127\.0\.0\.1","port":(\d+)/g);
    const port = [...told].at(-1)?.[1];
    if (port === undefined) throw new Error(`it serves no metrics on TCP: ${this.log}`);
    return `http://127.0.0.1:${port}`;
  }

  get #control(): ControlClient {
    return new ControlClient(this.controlPath);
  }

  get socketPath(): string {
    return join(this.folder, 'vhost.sock');
  }

  /** Of the daemon, also where a keeper started it. */
  get pid(): number {
    return this.#starts().at(-1) ?? this.child.pid ?? 0;
  }

  /** Ends the daemon under its keeper; resolves when the next one serves. */
  async crash(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const before = this.#starts().length;
    process.kill(this.pid, signal);
    for (let waited = 0; this.#starts().length === before; waited += 5) {
      if (waited > PATIENCE_MS) throw new Error(`the daemon does not come back: ${this.log}`);
      await sleep(5);
    }
  }

  #starts(): number[] {
    return [...this.log.matchAll(/"event":"daemon-started","pid":(\d+)/g)].map((match) => Number(match[1]));
  }

  /** Runs balloonctl; its exit code is the caller's to judge. */
  ctl(...args: string[]): Promise<CtlResult> {
    const command = [join(BIN, 'balloonctl.js'), '--control', join(this.folder, 'control.sock'), ...args];
    return new Promise((resolve) => {
      execFile(process.execPath, command, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? 128), stdout, stderr });
      });
    });
  }

  /** Runs balloonctl and throws what it said when it fails. */
  async ok(...args: string[]): Promise<string> {
    const patient =
      args.includes('--wait') && !args.includes('--timeout') ? ['--timeout', `${PATIENCE_MS / 1000}`] : [];
    const { code, stdout, stderr } = await this.ctl(...args, ...patient);
    if (code !== 0)
      throw new Error(`balloonctl ${args.join(' ')} ended with ${code}: ${stderr}\n${this.log}`);
    return stdout;
  }

  show(vm: string): Promise<VmView> {
    return this.#control.show(vm);
  }

  list(): Promise<VmView[]> {
    return this.#control.list();
  }

  /** Has the guest give up so much, and waits until it did; as balloonctl set --wait, without a process of its own. */
  async inflateTo(vm: string, balloonBytes: number): Promise<void> {
    await this.#control.setTarget(vm, { balloonBytes });
    await this.until(
      vm,
      ({ balloon }) => balloon.actualBytes === balloonBytes,
      `${balloonBytes} in the balloon`,
    );
  }

  stats(vm: string): Promise<VmStats> {
    return this.#control.stats(vm, true);
  }

  events(): Promise<DaemonEvent[]> {
    return this.#control.events();
  }

  async until(
    vm: string,
    condition: (view: VmView) => boolean,
    what: string,
    timeoutMs = PATIENCE_MS,
  ): Promise<VmView> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = (await this.list()).find(({ name }) => name === vm);
      if (found !== undefined && condition(found)) return found;
      if (performance.now() > deadline) {
        throw new Error(`never: ${what}; ${JSON.stringify(found)}\n${this.log}`);
      }
      await sleep(100);
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    process.off('exit', this.#killAtExit);
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill(signal);
      await once(this.child, 'exit');
    }
    if (existsSync(this.folder)) rmSync(this.folder, { recursive: true });
  }

  readonly #killAtExit = (): void => {
    this.child.kill('SIGKILL');
  };
}
