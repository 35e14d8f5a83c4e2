import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readdirSync, readlinkSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Mapping } from '../src/os/mapping.js';

/** virtio-mmio registers (virtio 1.3, 4.2.2). */
const MAGIC = 0x000;
const DEVICE_ID = 0x008;
const DRIVER_FEATURES = 0x020;
const DRIVER_FEATURES_SEL = 0x024;
const QUEUE_SEL = 0x030;
const QUEUE_NUM = 0x038;
const QUEUE_READY = 0x044;
const QUEUE_NOTIFY = 0x050;
const STATUS = 0x070;
const QUEUE_DESC_LOW = 0x080;
const QUEUE_DRIVER_LOW = 0x090;
const QUEUE_DEVICE_LOW = 0x0a0;
const MMIO_BASE = 0xfeb00000;
const MMIO_STEP = 512;
const MMIO_SLOTS = 24;
const VIRT_MAGIC = 0x74726976;

const RING_SIZE = 128;
const DESC_GPA = 0x100000;
const AVAIL_GPA = 0x101000;
const USED_GPA = 0x102000;
const PFN_GPA = 0x103000;

/**
 * A QEMU without a guest: this process plays the balloon driver, over the qtest protocol for registers and over
 * the shared memory file for rings, so that the device is measured and no emulated CPU is.
 */
export class QtestMachine {
  readonly qemu: ChildProcess;
  readonly #socket: Socket;
  readonly memory: Mapping;
  readonly memoryFd: number;
  readonly #avail: Uint16Array;
  readonly #used: Uint16Array;
  readonly #availRing: Uint16Array;
  #device = 0;
  #answer: ((line: string) => void) | null = null;
  #buffered = '';
  #next = 0;

  private constructor(qemu: ChildProcess, socket: Socket, memory: Mapping, memoryFd: number) {
    this.qemu = qemu;
    this.#socket = socket;
    this.memory = memory;
    this.memoryFd = memoryFd;
    const avail = new Uint16Array(memory.view(AVAIL_GPA, 6 + 2 * RING_SIZE));
    this.#avail = avail;
    this.#availRing = avail.subarray(2);
    this.#used = new Uint16Array(memory.view(USED_GPA, 6 + 8 * RING_SIZE));
    socket.on('data', (data: Buffer) => {
      this.#buffered += data.toString('latin1');
      for (let end = this.#buffered.indexOf('\n'); end >= 0; end = this.#buffered.indexOf('\n')) {
        const line = this.#buffered.slice(0, end);
        this.#buffered = this.#buffered.slice(end + 1);
        if (!line.startsWith('IRQ')) this.#answer?.(line);
      }
    });
  }

  static async start(options: {
    qemu: string;
    device: string[];
    memoryMib: number;
    qtestPath: string;
  }): Promise<QtestMachine> {
    const { memoryMib } = options;
    const qemu = spawn(
      options.qemu,
      [
        ...['-M', 'microvm,memory-backend=mem', '-m', `${memoryMib}M`, '-accel', 'qtest', '-display', 'none'],
        ...['-nodefaults', '-no-user-config', '-global', 'virtio-mmio.force-legacy=false'],
        ...['-object', `memory-backend-memfd,id=mem,size=${memoryMib}M,share=on`],
        ...['-qtest', `unix:${options.qtestPath},server=on,wait=off`, '-qtest-log', '/dev/null'],
        ...['-run-with', 'exit-with-parent=on'],
        ...options.device,
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    const socket = await connect(options.qtestPath);
    const fd = openMemory(qemu.pid ?? 0);
    const machine = new QtestMachine(qemu, socket, Mapping.map(fd, 0, memoryMib * 2 ** 20), fd);
    await machine.#startDriver();
    return machine;
  }

  /**
   * One buffer of page frame numbers into the inflate queue. Resolves with the microseconds from the kick until the
   * device gave it back.
   */
  async inflate(pfns: Uint8Array): Promise<number> {
    this.memory.write(PFN_GPA, pfns, 0, pfns.length);
    const descriptor = new DataView(new ArrayBuffer(16));
    descriptor.setUint32(0, PFN_GPA, true);
    descriptor.setUint32(8, pfns.length, true);
    this.memory.write(DESC_GPA, new Uint8Array(descriptor.buffer), 0, 16);
    this.#availRing[this.#next % RING_SIZE] = 0;
    this.#next = (this.#next + 1) & 0xffff;
    Atomics.store(this.#avail, 1, this.#next);
    const start = process.hrtime.bigint();
    const written = this.#write(QUEUE_NOTIFY, 0);
    while (Atomics.load(this.#used, 1) !== this.#next);
    const micros = Number(process.hrtime.bigint() - start) / 1000;
    await written;
    return micros;
  }

  async close(): Promise<void> {
    this.#socket.destroy();
    this.memory.close();
    this.qemu.kill('SIGKILL');
    if (this.qemu.exitCode === null && this.qemu.signalCode === null) await once(this.qemu, 'exit');
  }

  async #startDriver(): Promise<void> {
    for (let slot = 0; slot < MMIO_SLOTS; slot++) {
      this.#device = MMIO_BASE + slot * MMIO_STEP;
      if ((await this.#read(MAGIC)) === VIRT_MAGIC && (await this.#read(DEVICE_ID)) === 5) break;
    }
    await this.#write(STATUS, 0);
    await this.#write(STATUS, 3);
    await this.#write(DRIVER_FEATURES_SEL, 0);
    await this.#write(DRIVER_FEATURES, 0);
    await this.#write(DRIVER_FEATURES_SEL, 1);
    await this.#write(DRIVER_FEATURES, 1);
    await this.#write(STATUS, 11);
    for (const [queue, base] of [
      [0, 0],
      [1, 0x10000],
    ] as const) {
      await this.#write(QUEUE_SEL, queue);
      await this.#write(QUEUE_NUM, RING_SIZE);
      await this.#write(QUEUE_DESC_LOW, DESC_GPA + base);
      await this.#write(QUEUE_DRIVER_LOW, AVAIL_GPA + base);
      await this.#write(QUEUE_DEVICE_LOW, USED_GPA + base);
      await this.#write(QUEUE_READY, 1);
    }
    await this.#write(STATUS, 15);
    // The frontend tells its backend; the first kick must not overtake that.
    await sleep(300);
  }

  #write(register: number, value: number): Promise<string> {
    return this.#command(`writel 0x${(this.#device + register).toString(16)} 0x${value.toString(16)}`);
  }

  async #read(register: number): Promise<number> {
    const answer = await this.#command(`readl 0x${(this.#device + register).toString(16)}`);
    return Number(answer.split(' ')[1]);
  }

  #command(line: string): Promise<string> {
    return new Promise((resolve) => {
      this.#answer = resolve;
      this.#socket.write(`${line}\n`);
    });
  }
}

async function connect(path: string): Promise<Socket> {
  for (let left = 100; ; left--) {
    const socket = createConnection(path);
    try {
      await once(socket, 'connect');
      return socket;
    } catch (error) {
      if (left === 0) throw error;
      await sleep(50);
    }
  }
}

/** The memory backend's memfd, by way of QEMU's own open files. */
function openMemory(pid: number): number {
  const fd = readdirSync(`/proc/${pid}/fd`).find((name) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${name}`).startsWith('/memfd:memory-backend');
    } catch {
      return false;
    }
  });
  if (fd === undefined) throw new Error(`process ${pid} has no memory backend`);
  return openSync(`/proc/${pid}/fd/${fd}`, 'r+');
}
