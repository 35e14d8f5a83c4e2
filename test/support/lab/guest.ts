/**
 * A Linux guest in a QEMU that ends with this process, however that ends. Nothing is left on disk: console, QMP
 * and agent are socket pairs.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { Socket } from 'node:net';
import { eventually } from '../deadline.js';
import { Agent } from './agent.js';
import { FDS, memoryBackend, qemuArguments, type GuestOptions } from './arguments.js';
import { ensureLab } from './lab.js';
import { memfdAllocatedBytes } from './memfd-blocks.js';
import { Qmp, type QmpEvent } from './qmp.js';
import { within } from './within.js';

export type { DeviceOptions, GuestOptions } from './arguments.js';
export type { QmpEvent } from './qmp.js';

export interface ShellResult {
  /** 128 + signal when one ended it. */
  readonly code: number;
  /** stdout and stderr, at most 4 MiB. */
  readonly output: string;
}

const START_TIMEOUT_MS = 120_000;
const REQUEST_TIMEOUT_MS = 180_000;
const QMP_TIMEOUT_MS = 120_000;
const LOG_BYTES_MAX = 1024 ** 2;
const TAIL_LINES = 15;
const PANIC = /Kernel panic - not syncing.*\n/;

export class Guest {
  readonly name: string;
  /** QEMU's. */
  readonly pid: number;
  /** How QEMU ended: its exit code or the signal. */
  readonly exitCode: Promise<number | NodeJS.Signals>;
  /** What QEMU announced, oldest first. */
  readonly events: QmpEvent[] = [];
  readonly #options: GuestOptions;
  readonly #child: ChildProcess;
  readonly #agent: Agent;
  readonly #qmp: Qmp;
  #console = '';
  #stderr = '';
  #dimms = 0;

  private constructor(options: GuestOptions, child: ChildProcess, pid: number) {
    this.#options = options;
    this.name = options.name;
    this.pid = pid;
    this.#child = child;
    this.#agent = new Agent(socketAt(child, FDS.agent));
    this.#qmp = new Qmp(socketAt(child, FDS.qmp), (event) => this.events.push(event));
    const console = socketAt(child, FDS.console);
    console.setEncoding('utf8');
    console.on('data', (text: string) => this.#hear(text));
    console.on('error', () => undefined);
    child.stderr?.setEncoding('utf8');
    child.stderr?.on('data', (text: string) => (this.#stderr = (this.#stderr + text).slice(-LOG_BYTES_MAX)));
    this.exitCode = new Promise((resolve) => {
      child.on('close', (code, signal) => {
        const how = code ?? signal ?? 0;
        const error = new Error(this.#explain(`QEMU ended (${how})`));
        this.#agent.end(error);
        this.#qmp.end(error);
        resolve(how);
      });
    });
  }

  /** Resolves when QEMU's devices are there and the guest starts; throws QEMU's own words when it does not. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const lab = await ensureLab(options.machine);
    const child = spawn(lab.qemu, qemuArguments(lab, options), {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
    });
    if (child.pid === undefined) {
      throw await new Promise<Error>((resolve) => child.once('error', resolve));
    }
    const guest = new Guest(options, child, child.pid);
    try {
      await guest.qmp('qmp_capabilities');
    } catch (error) {
      await guest.kill();
      throw error;
    }
    return guest;
  }

  /** Text of the guest's serial console. */
  get consoleLog(): string {
    return this.#console;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Resolves once user space is up and the balloon driver is loaded. */
  waitReady(timeoutMs = START_TIMEOUT_MS): Promise<void> {
    return this.#within(this.#agent.ready(), timeoutMs, 'user space did not start');
  }

  /** Runs a command in the guest's shell. */
  async sh(command: string, timeoutMs = REQUEST_TIMEOUT_MS): Promise<ShellResult> {
    const line = `sh ${Buffer.byteLength(command)}`;
    const answer = this.#agent.request(line, command);
    const { status, output } = await this.#within(answer, timeoutMs, `no answer to: ${command}`);
    return { code: status, output };
  }

  /** /proc/meminfo by its own names, in bytes (HugePages_* are counts). */
  async meminfo(): Promise<Record<string, number>> {
    const { output } = await this.sh('cat /proc/meminfo');
    const values: Record<string, number> = {};
    for (const [, key = '', value, unit] of output.matchAll(/^(\S+):\s+(\d+)( kB)?$/gm)) {
      values[key] = Number(value) * (unit === undefined ? 1 : 1024);
    }
    return values;
  }

  /** Takes anonymous memory and fills each page with a pattern of its own; what was held before is dropped. */
  async hold(memoryMib: number, seed: number, timeoutMs = REQUEST_TIMEOUT_MS): Promise<void> {
    await this.#count(`hold ${memoryMib} ${seed}`, timeoutMs);
  }

  /** The number of held pages that are not as they were written. */
  verify(timeoutMs = REQUEST_TIMEOUT_MS): Promise<number> {
    return this.#count('verify', timeoutMs);
  }

  /** Writes anew `pages` held pages picked by `seed`; the number that were not as they were written before. */
  churn(pages: number, seed: number, timeoutMs = REQUEST_TIMEOUT_MS): Promise<number> {
    return this.#count(`churn ${pages} ${seed}`, timeoutMs);
  }

  /** As `churn`, but a MiB at a time, each in memory that the kernel gives anew. */
  renew(mib: number, seed: number, timeoutMs = REQUEST_TIMEOUT_MS): Promise<number> {
    return this.#count(`renew ${mib} ${seed}`, timeoutMs);
  }

  async drop(): Promise<void> {
    await this.#count('drop', REQUEST_TIMEOUT_MS);
  }

  /** Takes, touches and gives back memory in a process of its own; false when the guest killed that process. */
  async eat(memoryMib: number, timeoutMs = REQUEST_TIMEOUT_MS): Promise<boolean> {
    const answer = this.#agent.request(`eat ${memoryMib}`);
    const { status } = await this.#within(answer, timeoutMs, `could not eat ${memoryMib} MiB`);
    return status === 0;
  }

  qmp(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return this.#within(this.#qmp.execute(command, args), QMP_TIMEOUT_MS, `no answer to QMP ${command}`);
  }

  /** Plugs in memory of the same backing (needs `hotplugSlots`); the guest takes it into use by itself. */
  async addMemory(memoryMib: number): Promise<void> {
    const id = `dimm${this.#dimms++}`;
    const backend = memoryBackend(this.#options, memoryMib);
    await this.qmp('object-add', { 'qom-type': 'memory-backend-memfd', id: `${id}-mem`, ...backend });
    await this.qmp('device_add', { driver: 'pc-dimm', id, memdev: `${id}-mem` });
  }

  /** The guest restarts by itself. Resolves once it is up again. */
  reboot(timeoutMs = START_TIMEOUT_MS): Promise<void> {
    const command = 'reboot -f';
    // Never answered: rejected when the guest starts anew, or with all else when it does not.
    this.#agent.request(`sh ${command.length}`, command).catch(() => undefined);
    this.#agent.expectRestart();
    return this.waitReady(timeoutMs);
  }

  /** As the reset button does. Resolves once the guest is up again. */
  async systemReset(timeoutMs = START_TIMEOUT_MS): Promise<void> {
    this.#agent.expectRestart();
    await this.qmp('system_reset');
    await this.waitReady(timeoutMs);
  }

  /** Moves to `other`, a QEMU with the same devices and `-incoming defer`, by a socket at `path`; what the guest is asked from now on is asked there. */
  async migrateTo(other: Guest, path: string): Promise<void> {
    const uri = `unix:${path}`;
    await other.qmp('migrate-incoming', { uri });
    await this.qmp('migrate', { uri });
    await eventually(
      async () => {
        const { status, ...more } = (await this.qmp('query-migrate')) as { status?: string };
        if (status === 'failed') throw new Error(this.#explain(`not migrated: ${JSON.stringify(more)}`));
        return status === 'completed';
      },
      () => this.#explain('it has migrated'),
    );
    other.#agent.arrived();
  }

  /** Bytes the host has allocated to the guest's memory, hotplugged memory included. */
  memfdAllocatedBytes(): number {
    const bytes = memfdAllocatedBytes(this.pid);
    if (bytes === 0) throw new Error(this.#explain('QEMU holds no memfd of guest memory'));
    return bytes;
  }

  /** SIGKILL. Resolves when QEMU is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exitCode;
  }

  /** Lets QEMU end in order. Resolves when it is gone. */
  async quit(): Promise<void> {
    await this.qmp('quit').catch((error: unknown) => {
      if (this.#child.exitCode === null && this.#child.signalCode === null) throw error;
    });
    await this.#within(this.exitCode, QMP_TIMEOUT_MS, 'QEMU does not quit');
  }

  async #count(request: string, timeoutMs: number): Promise<number> {
    const answer = this.#agent.request(request);
    const { status, output } = await this.#within(answer, timeoutMs, `no answer to: ${request}`);
    if (status !== 0) throw new Error(this.#explain(`${request}: ${output}`));
    return Number(output);
  }

  #hear(text: string): void {
    const line = this.#console.lastIndexOf('\n') + 1;
    this.#console += text.replaceAll('\r', '');
    if (PANIC.test(this.#console.slice(line))) {
      this.#agent.interrupt(new Error(this.#explain('the guest panicked')));
    }
    this.#console = this.#console.slice(-LOG_BYTES_MAX);
  }

  #within<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
    return within(promise, timeoutMs, () => new Error(this.#explain(`${what} (waited ${timeoutMs} ms)`)));
  }

  #explain(what: string): string {
    const tails = { console: this.#console, stderr: this.#stderr };
    const told = Object.entries(tails).map(([source, text]) => {
      const lines = text.trimEnd().split('\n').slice(-TAIL_LINES);
      return `--- ${source}\n${lines.join('\n')}`;
    });
    return `guest ${this.name}: ${what}\n${told.join('\n')}`;
  }
}

function socketAt(child: ChildProcess, fd: number): Socket {
  const stream = child.stdio[fd];
  if (!(stream instanceof Socket)) throw new Error(`no socket pair at ${fd}`);
  return stream;
}
