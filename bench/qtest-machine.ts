import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Bytes that QEMU fills at once: it makes a copy of so many. */
const FILL_BYTES = 2 ** 21;
const START_TIMEOUT_MS = 20_000;

/**
 * A QEMU without a guest, commanded by the qtest protocol, so that devices are measured and no emulated CPU is.
 *
 * The protocol goes through a pair of FIFOs, since Node can wait for those without its event loop: a command blocks
 * this thread until QEMU has answered, as a register access blocks a vCPU, and leaves the core to QEMU meanwhile.
 */
export class QtestMachine {
  readonly memoryFd: number;
  readonly #qemu: ChildProcess;
  readonly #commands: number;
  readonly #answers: number;
  readonly #answer = Buffer.alloc(256);

  private constructor(qemu: ChildProcess, memoryFd: number, commands: number, answers: number) {
    this.#qemu = qemu;
    this.memoryFd = memoryFd;
    this.#commands = commands;
    this.#answers = answers;
  }

  /** `memory`: further properties of the memory backend. */
  static async start(options: {
    qemu: string;
    memoryMib: number;
    memory: string;
    device: readonly string[];
  }): Promise<QtestMachine> {
    const size = `${options.memoryMib}M`;
    const folder = mkdtempSync(join(tmpdir(), 'qtest-'));
    const fifo = join(folder, 'qtest');
    execFileSync('mkfifo', [`${fifo}.in`, `${fifo}.out`]);
    const qemu = spawn(
      options.qemu,
      [
        ...['-M', 'microvm,memory-backend=mem', '-m', size, '-accel', 'qtest', '-display', 'none'],
        ...['-nodefaults', '-no-user-config', '-global', 'virtio-mmio.force-legacy=false'],
        ...['-object', `memory-backend-memfd,id=mem,size=${size},share=on${options.memory}`],
        ...['-qtest', `pipe:${fifo}`, '-qtest-log', '/dev/null'],
        ...['-run-with', 'exit-with-parent=on'],
        ...options.device,
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    try {
      // A FIFO that nobody else has open would block this process for good.
      await openedBy(qemu, `${fifo}.out`);
      const memory = await openedBy(qemu, '/memfd:memory-backend');
      return new QtestMachine(
        qemu,
        openSync(memory, 'r+'),
        openSync(`${fifo}.in`, 'w'),
        openSync(`${fifo}.out`, 'r'),
      );
    } catch (error) {
      qemu.kill('SIGKILL');
      throw error;
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  get pid(): number {
    return this.#qemu.pid ?? 0;
  }

  /** Returns what QEMU answered behind its OK. */
  command(line: string): string {
    writeSync(this.#commands, `${line}\n`);
    let length = 0;
    do {
      const got = readSync(this.#answers, this.#answer, length, this.#answer.length - length, null);
      if (got === 0) throw new Error(`QEMU ended at ${line}`);
      length += got;
    } while (this.#answer[length - 1] !== 0x0a);
    const answer = this.#answer.toString('latin1', 0, length - 1);
    if (!answer.startsWith('OK')) throw new Error(`QEMU answers ${line} with ${answer}`);
    return answer.slice(3);
  }

  /** Writes to guest memory as a vCPU would: the pages become part of QEMU's address space, and of no other. */
  fill(gpa: number, lenBytes: number): void {
    for (let at = 0; at < lenBytes; at += FILL_BYTES) {
      this.command(
        `memset 0x${(gpa + at).toString(16)} 0x${Math.min(FILL_BYTES, lenBytes - at).toString(16)} 0xa5`,
      );
    }
  }

  async close(): Promise<void> {
    for (const fd of [this.memoryFd, this.#commands, this.#answers]) closeSync(fd);
    this.#qemu.kill('SIGKILL');
    if (this.#qemu.exitCode === null && this.#qemu.signalCode === null) await once(this.#qemu, 'exit');
  }
}

/** Waits until QEMU has opened a file of that name, and returns the path of its descriptor. */
async function openedBy(qemu: ChildProcess, name: string): Promise<string> {
  const folder = `/proc/${qemu.pid ?? 0}/fd`;
  for (let waited = 0; qemu.exitCode === null && waited < START_TIMEOUT_MS; waited += 10) {
    for (const fd of readdirSync(folder)) {
      try {
        if (readlinkSync(`${folder}/${fd}`).startsWith(name)) return `${folder}/${fd}`;
      } catch {
        // Closed since it was listed.
      }
    }
    await sleep(10);
  }
  throw new Error(`QEMU does not start: it has not opened ${name}`);
}
