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
import { Mapping } from '../src/os/mapping.js';
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

  readonly #mapping: Mapping | null;

  private constructor(
    qemu: ChildProcess,
    memoryFd: number,
    mapping: Mapping | null,
    commands: number,
    answers: number,
  ) {
    this.#qemu = qemu;
    this.memoryFd = memoryFd;
    this.#mapping = mapping;
    this.#commands = commands;
    this.#answers = answers;
  }

  /**
   * Owns `memoryFd`, a file of the size of the memory. `filledHere`: this process fills the memory, and has its pages
   * mapped while they are given up; else QEMU does.
   */
  static async start(options: {
    qemu: string;
    memoryMib: number;
    memoryFd: number;
    device: readonly string[];
    filledHere?: boolean;
  }): Promise<QtestMachine> {
    const size = `${options.memoryMib}M`;
    const file = `/proc/${process.pid}/fd/${options.memoryFd}`;
    const folder = mkdtempSync(join(tmpdir(), 'qtest-'));
    const fifo = join(folder, 'qtest');
    execFileSync('mkfifo', [`${fifo}.in`, `${fifo}.out`]);
    const qemu = spawn(
      options.qemu,
      [
        ...['-M', 'microvm,memory-backend=mem', '-m', size, '-accel', 'qtest', '-display', 'none'],
        ...['-nodefaults', '-no-user-config', '-global', 'virtio-mmio.force-legacy=false'],
        // Aligned, or else the kernel cannot map huge pages; memory-backend-memfd has no way to say so.
        ...['-object', `memory-backend-file,id=mem,size=${size},share=on,mem-path=${file},align=2M`],
        ...['-qtest', `pipe:${fifo}`, '-qtest-log', '/dev/null'],
        ...['-run-with', 'exit-with-parent=on'],
        ...options.device,
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    try {
      await opened(qemu, `${fifo}.out`);
      return new QtestMachine(
        qemu,
        options.memoryFd,
        options.filledHere === true ? Mapping.map(options.memoryFd, 0, options.memoryMib * 2 ** 20) : null,
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

  /** The FIFO of commands and the one of answers, for a process that commands QEMU in place of this one. */
  get fifos(): readonly [number, number] {
    return [this.#commands, this.#answers];
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
  fill(gpa: number, lenBytes: number, byte: number): void {
    const hex = (value: number): string => `0x${value.toString(16)}`;
    const filling = new Uint8Array(this.#mapping === null ? 0 : FILL_BYTES).fill(byte);
    for (let at = 0; at < lenBytes; at += FILL_BYTES) {
      if (this.#mapping !== null) {
        this.#mapping.write(gpa + at, filling, 0, Math.min(FILL_BYTES, lenBytes - at));
        continue;
      }
      this.command(`memset ${hex(gpa + at)} ${hex(Math.min(FILL_BYTES, lenBytes - at))} ${hex(byte)}`);
    }
  }

  async close(): Promise<void> {
    this.#mapping?.close();
    for (const fd of [this.memoryFd, this.#commands, this.#answers]) closeSync(fd);
    this.#qemu.kill('SIGKILL');
    if (this.#qemu.exitCode === null && this.#qemu.signalCode === null) await once(this.#qemu, 'exit');
  }
}

/** Waits until QEMU has the FIFO open: one that nobody else has open would block this process for good. */
async function opened(qemu: ChildProcess, fifo: string): Promise<void> {
  const folder = `/proc/${qemu.pid ?? 0}/fd`;
  for (let waited = 0; qemu.exitCode === null && waited < START_TIMEOUT_MS; waited += 10) {
    if (readdirSync(folder).some((fd) => target(`${folder}/${fd}`) === fifo)) return;
    await sleep(10);
  }
  throw new Error('QEMU does not start');
}

/** Null when it was closed since it was listed. */
function target(link: string): string | null {
  try {
    return readlinkSync(link);
  } catch {
    return null;
  }
}
