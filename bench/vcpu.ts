import { execFileSync, spawn, type ChildProcessByStdio } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { PFN_PAGE_BYTES } from './patterns.js';

const ROOT = join(import.meta.dirname, '../..');
const PROGRAM = join(ROOT, 'out/bench/vcpu');
const MIB = 2 ** 20;

export type Step = 'inflate' | 'deflate';

/** What one vCPU did: nanoseconds of the monotonic clock, and microseconds of each wait. */
export interface Told {
  readonly begun: number;
  readonly answered: number;
  readonly ended: number;
  readonly acks: readonly number[];
  readonly gets: readonly number[];
  readonly sets: readonly number[];
}

export interface VcpuOptions {
  readonly mode: 'vhost' | 'qtest' | 'limit';
  readonly memoryMib: number;
  readonly firstPfn: number;
  readonly mib: number;
  /** The address of the balloon's registers (default 0). */
  readonly device?: number;
  /** Of each ring: entries, and the guest addresses of descriptors, available ring, used ring and buffer. */
  readonly rings?: readonly (readonly number[])[];
  /** The program's fds from 3 on. */
  readonly fds: readonly number[];
}

/** Makes bench/vcpu.c into a program. */
export function buildVcpu(): void {
  mkdirSync(join(ROOT, 'out/bench'), { recursive: true });
  const source = join(ROOT, 'bench/vcpu.c');
  execFileSync('cc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', PROGRAM, source], { stdio: 'inherit' });
}

/** bench/vcpu.c as a process: a C program, so that the driver is not what is measured. */
export class Vcpu {
  readonly pid: number;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: Interface;

  /** The fds are free to be closed at once. */
  constructor({ mode, memoryMib, firstPfn, mib, device = 0, rings = [], fds }: VcpuOptions) {
    const pages = (mib * MIB) / PFN_PAGE_BYTES;
    const numbers = [memoryMib * MIB, firstPfn, pages, device, ...rings.flat()];
    this.#child = spawn(PROGRAM, [mode, ...numbers.map(String)], {
      stdio: ['pipe', 'pipe', 'inherit', ...fds],
    }) as ChildProcessByStdio<Writable, Readable, null>;
    this.pid = this.#child.pid ?? 0;
    this.#lines = createInterface(this.#child.stdout);
  }

  fill(): Promise<Told> {
    return this.#ask('fill');
  }

  /** `at`: when to begin, in nanoseconds of the monotonic clock, so that several begin together. */
  move(step: Step, at: string): Promise<Told> {
    return this.#ask(`${step} ${at}`);
  }

  async #ask(command: string): Promise<Told> {
    const lines: string[] = [];
    this.#child.stdin.write(`${command}\n`);
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error(`vcpu ended at ${command}`));
      const heard = (line: string): void => {
        if (lines.push(line) < 4) return;
        this.#lines.off('line', heard);
        this.#child.off('exit', ended);
        const [[begun = NaN, answered = NaN, ended_ = NaN] = [], acks = [], gets = [], sets = []] = lines.map(
          (each) => (each === '' ? [] : each.split(' ').map(Number)),
        );
        resolve({ begun, answered, ended: ended_, acks, gets, sets });
      };
      this.#lines.on('line', heard);
      this.#child.once('exit', ended);
    });
  }
}
