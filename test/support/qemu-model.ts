// A QMP server as QEMU's is, for one client at a time, with a balloon that does as it is told; or whatever else a test makes of it.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { PATIENCE_MS, within } from './deadline.js';

export const MIB = 2 ** 20;
const GREETING = {
  QMP: { version: { qemu: { micro: 3, minor: 1, major: 11 }, package: '' }, capabilities: ['oob'] },
};

type Args = Readonly<Record<string, unknown>>;

/** A folder for sockets, which goes with the test. */
export function socketFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'qmp-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export class QemuModel {
  readonly path: string;
  name: string | null = 'web';
  uuid = '00000000-0000-0000-0000-000000000000';
  ramBytes = 1024 * MIB;
  balloonBytes = 0;
  targetBytes = 0;
  interval = 0;
  running = true;
  driverRuns = true;
  deflateOnOom = false;
  /** When its driver sent statistics last, in seconds; a driver does so as it starts. */
  statsAt = 1_700_000_000;
  /** The guest follows its target at once; false: not at all. */
  follows = true;
  hasBalloon = true;
  /** Commands that get no answer. */
  silent = new Set<string>();
  /** All commands that came, with what qom-set set. */
  readonly commands: string[] = [];
  readonly #server: Server;
  readonly #all = new Set<Socket>();
  /** The client that is served, and those that wait in line. */
  #line: Socket[] = [];

  private constructor(path: string) {
    this.path = path;
    this.#server = createServer((socket) => {
      this.#all.add(socket);
      this.#line.push(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.#all.delete(socket);
        const served = this.#line[0] === socket;
        this.#line = this.#line.filter((one) => one !== socket);
        if (served) this.#serve();
      });
      if (this.#line.length === 1) this.#serve();
    });
  }

  static async start(t: Test, path: string, change: Partial<QemuModel> = {}): Promise<QemuModel> {
    const model = Object.assign(new QemuModel(path), change);
    await new Promise<void>((resolve) => model.#server.listen(path, resolve));
    t.teardown(() => model.end());
    return model;
  }

  /** As when QEMU ends. */
  async end(): Promise<void> {
    for (const socket of this.#all) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /** As when the client that is served ends. */
  drop(): void {
    this.#line[0]?.destroy();
  }

  emit(event: string, data: Args = {}): void {
    if (['STOP', 'SUSPEND'].includes(event)) this.running = false;
    if (['RESUME', 'WAKEUP'].includes(event)) this.running = true;
    this.say({ timestamp: { seconds: 0, microseconds: 0 }, event, data });
  }

  /** The guest gives up so much, by itself or as it was asked. */
  inflate(bytes: number): void {
    this.balloonBytes = bytes;
    this.emit('BALLOON_CHANGE', { actual: this.ramBytes - bytes });
  }

  say(message: object): void {
    this.write(`${JSON.stringify(message)}\r\n`);
  }

  /** Anything at all, to the client that is served. */
  write(text: string | Uint8Array): void {
    this.#line[0]?.write(text);
  }

  /** How many clients there are. */
  get clients(): number {
    return this.#line.length;
  }

  #serve(): void {
    const [socket] = this.#line;
    if (socket === undefined) return;
    this.say(GREETING);
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop() ?? '';
      for (const line of lines)
        this.#execute(JSON.parse(line) as { execute: string; arguments: Args; id: number });
    });
  }

  #execute({
    execute: command,
    arguments: args,
    id,
  }: {
    execute: string;
    arguments: Args;
    id: number;
  }): void {
    this.commands.push(command === 'qom-set' ? `${command} ${String(args['value'])}` : command);
    if (this.silent.has(command)) return;
    try {
      this.say({ return: this.#answer(command, args), id });
    } catch (error) {
      const [errorClass = '', desc = ''] = (error as Error).message.split(': ');
      this.say({ error: { class: errorClass, desc }, id });
    }
    if (command === 'balloon' && this.follows) this.inflate(this.targetBytes);
  }

  #answer(command: string, args: Args): unknown {
    switch (command) {
      case 'qmp_capabilities':
        return {};
      case 'query-name':
        return this.name === null ? {} : { name: this.name };
      case 'query-uuid':
        return { UUID: this.uuid };
      case 'query-status':
        return { status: this.running ? 'running' : 'paused', running: this.running };
      case 'query-memory-size-summary':
        return { 'base-memory': this.ramBytes, 'plugged-memory': 0 };
      case 'query-memory-devices':
        return [];
      case 'query-balloon':
        if (!this.hasBalloon) throw new Error('DeviceNotActive: No balloon device has been activated');
        return { actual: this.ramBytes - this.balloonBytes };
      case 'balloon':
        this.targetBytes = this.ramBytes - Number(args['value']);
        return {};
      case 'qom-list':
        return this.hasBalloon && args['path'] === '/machine/peripheral'
          ? [
              { name: 'type', type: 'string' },
              { name: 'balloon0', type: 'child<virtio-balloon-pci>' },
            ]
          : [{ name: 'type', type: 'string' }];
      case 'qom-get':
        return this.#property(args['property']);
      case 'qom-set':
        this.interval = Number(args['value']);
        if (this.interval > 0 && this.driverRuns) this.statsAt = Math.floor(Date.now() / 1000);
        return {};
      default:
        throw new Error(`CommandNotFound: The command ${command} has not been found`);
    }
  }

  #property(name: unknown): unknown {
    if (name === 'guest-stats-polling-interval') return this.interval;
    if (name === 'deflate-on-oom') return this.deflateOnOom;
    return {
      stats: {
        'stat-total-memory': this.ramBytes - this.balloonBytes - 24 * MIB,
        'stat-free-memory': 512 * MIB,
        'stat-available-memory': 600 * MIB,
        'stat-swap-in': 2 ** 64,
      },
      'last-update': this.statsAt,
    };
  }
}

/** Resolves when `condition` holds; asks every few milliseconds. */
export async function soon(condition: () => boolean, what: string): Promise<void> {
  const asked = (async () => {
    while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
  })();
  await within(asked, PATIENCE_MS, () => `never: ${what}`);
}
