import { join } from 'node:path';
import { ControlClient } from '../src/control/client.js';
import { discardRanges } from '../src/os/discard.js';
import { Mapping } from '../src/os/mapping.js';
import type { DaemonProcess } from '../test/support/daemon.js';
import { cpuSeconds, threadSeconds, type CpuParts } from './process-cost.js';
import { kicks, PFN_PAGE_BYTES, punches, type Pattern } from './patterns.js';
import { DEFLATE, INFLATE, type QtestBalloon } from './qtest-balloon.js';
import type { QtestMachine } from './qtest-machine.js';

/** What system calls that discard did so far. */
export interface Discarding {
  readonly bytes: number;
  readonly seconds: number;
}

/**
 * One way to give memory back. Each has a QEMU of its own that fills its memory itself, so that the pages are mapped
 * in a VMM and nowhere else, as a guest's are, and to remove one costs every contender the same.
 */
export interface Contender {
  readonly name: string;
  readonly memoryFd: number;
  /** The CPU that was used so far. */
  cpu(): CpuParts;
  /** Fills a pattern's memory. Returns the call that gives it up, which returns the microseconds of each kick. */
  ready(pattern: Pattern): () => number[];
  /** Null while nobody counts it. */
  discarding(): Promise<Discarding | null>;
  close(): Promise<void>;
}

/** A balloon, QEMU's own or the one of `daemon`. */
export class BalloonContender implements Contender {
  readonly name: string;
  readonly #balloon: QtestBalloon;
  readonly #daemon: DaemonProcess | null;
  readonly #control: ControlClient | null;
  #given: readonly Uint8Array[] = [];

  constructor(name: string, balloon: QtestBalloon, daemon: DaemonProcess | null) {
    this.name = name;
    this.#balloon = balloon;
    this.#daemon = daemon;
    this.#control = daemon && new ControlClient(join(daemon.folder, 'control.sock'));
  }

  get memoryFd(): number {
    return this.#balloon.machine.memoryFd;
  }

  cpu(): CpuParts {
    const daemon = this.#daemon?.pid;
    const threads = daemon === undefined ? null : threadSeconds(daemon);
    return {
      driver: cpuSeconds(process.pid),
      vmm: cpuSeconds(this.#balloon.machine.pid),
      rings: threads?.first.ran ?? 0,
      discards: threads?.others.ran ?? 0,
      discardsWaiting: threads?.others.waited ?? 0,
    };
  }

  ready(pattern: Pattern): () => number[] {
    for (const pfns of this.#given) this.#balloon.submit(DEFLATE, pfns);
    fill(this.#balloon.machine, pattern);
    const buffers = kicks(pattern);
    this.#given = buffers;
    return () => buffers.map((pfns) => this.#balloon.submit(INFLATE, pfns));
  }

  async discarding(): Promise<Discarding | null> {
    if (this.#control === null) return null;
    const { balloon } = await this.#control.show(`pid-${this.#balloon.machine.pid}`);
    const { discardedBytesTotal: bytes, discardSecondsTotal: seconds } = balloon;
    return bytes === null || seconds === null ? null : { bytes, seconds };
  }

  close(): Promise<void> {
    return this.#balloon.close();
  }
}

/**
 * A machine without a balloon, whose pages the native helper punches: the fewest ranges of `pfnsPerCall` pages, one
 * system call each, and no JavaScript between them.
 */
export class LimitContender implements Contender {
  readonly name: string;
  readonly #machine: QtestMachine;
  readonly #memory: Mapping;
  readonly #backingPageBytes: number;
  readonly #pfnsPerCall: number;
  #discarding: Discarding = { bytes: 0, seconds: 0 };

  constructor(
    name: string,
    machine: QtestMachine,
    {
      memoryBytes,
      backingPageBytes,
      pfnsPerCall,
    }: { memoryBytes: number; backingPageBytes: number; pfnsPerCall: number },
  ) {
    this.name = name;
    this.#machine = machine;
    // Nothing is read or written here, so this process has none of the pages in its page tables.
    this.#memory = Mapping.map(machine.memoryFd, 0, memoryBytes);
    this.#backingPageBytes = backingPageBytes;
    this.#pfnsPerCall = pfnsPerCall;
  }

  get memoryFd(): number {
    return this.#machine.memoryFd;
  }

  cpu(): CpuParts {
    return { driver: 0, vmm: 0, rings: 0, discards: cpuSeconds(process.pid), discardsWaiting: 0 };
  }

  ready(pattern: Pattern): () => number[] {
    fill(this.#machine, pattern);
    const calls = punches(pattern, this.#backingPageBytes, this.#pfnsPerCall);
    return () => calls.map((ranges) => this.#punch(ranges));
  }

  discarding(): Promise<Discarding> {
    return Promise.resolve(this.#discarding);
  }

  close(): Promise<void> {
    this.#memory.close();
    return this.#machine.close();
  }

  #punch(ranges: Float64Array): number {
    const start = performance.now();
    const { error } = discardRanges(this.#memory, this.memoryFd, ranges, ranges.length / 2, 'madvise');
    const millis = performance.now() - start;
    if (error !== null) throw error;
    let { bytes } = this.#discarding;
    for (let at = 1; at < ranges.length; at += 2) bytes += ranges[at] ?? 0;
    this.#discarding = { bytes, seconds: this.#discarding.seconds + millis / 1000 };
    return millis * 1000;
  }
}

function fill(machine: QtestMachine, { pfns }: Pattern): void {
  const first = pfns.reduce((least, pfn) => Math.min(least, pfn));
  machine.fill(first * PFN_PAGE_BYTES, pfns.length * PFN_PAGE_BYTES, 0xa5);
}
