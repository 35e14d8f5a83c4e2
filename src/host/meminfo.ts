import { join } from 'node:path';
import { readKernelFile } from '../os/kernel-file.js';
import { HOST_PATHS } from './host-paths.js';
import { readPressure, type Pressure, DEFAULT_THRESHOLD, PressureTrigger } from './pressure.js';

export interface HostReading {
  totalBytes: number;
  /** What could be given to somebody without swapping, as the kernel estimates it. */
  availableBytes: number;
  /** Of a reading of a part of the host: what the host has available beyond that part. */
  beyondBytes?: number;
  /** Null: the kernel does not count it (boot with `psi=1`). */
  pressure: Pressure | null;
}

/** The memory of the host, in /proc/meminfo and /proc/pressure/memory. */
export class HostMemory {
  readonly #proc: string;

  constructor(proc = HOST_PATHS.proc) {
    this.#proc = proc;
  }

  /** Throws when /proc/meminfo cannot be read or lacks what every kernel since 3.14 has. */
  read(): HostReading {
    const text = this.#meminfo();
    return {
      totalBytes: bytesOf(text, 'MemTotal'),
      availableBytes: bytesOf(text, 'MemAvailable'),
      pressure: readPressure(this.#pressurePath),
    };
  }

  /** MemAvailable alone. Throws as read() does. */
  availableBytes(): number {
    return bytesOf(this.#meminfo(), 'MemAvailable');
  }

  /** Calls back as PressureTrigger does, and throws what it throws. */
  watchPressure(
    onPressure: (pressure: Pressure | null) => void,
    threshold = DEFAULT_THRESHOLD,
  ): PressureTrigger {
    return new PressureTrigger(this.#pressurePath, threshold, onPressure);
  }

  #meminfo(): string {
    return readKernelFile(join(this.#proc, 'meminfo'));
  }

  get #pressurePath(): string {
    return join(this.#proc, 'pressure/memory');
  }
}

function bytesOf(text: string, name: string): number {
  const match = new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(text);
  if (match === null) throw new Error(`/proc/meminfo has no ${name}`);
  return Number(match[1]) * 1024;
}
