import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { readKernelFile } from '../os/kernel-file.js';
import { Poller, PRIORITIZED } from '../os/poller.js';
import { codeOf } from './host-paths.js';

/** Documentation/accounting/psi.rst: a share of time in percent, and what was lost in all, in microseconds. */
interface PressureLine {
  avg10: number;
  totalUs: number;
}

/** `some`: at least one task was stalled; `full`: all of them at once (null on kernels that do not say). */
export interface Pressure {
  some: PressureLine;
  full: PressureLine | null;
}

/** How much must be lost within which time for a trigger to say so. */
interface PressureThreshold {
  kind: 'some' | 'full';
  stallUs: number;
  /** A multiple of 2 s: whoever lacks CAP_SYS_RESOURCE may ask for no other. */
  windowUs: number;
}

export const DEFAULT_THRESHOLD: PressureThreshold = { kind: 'some', stallUs: 150_000, windowUs: 2_000_000 };

/** No pressure file is longer. */
const MAX_READ_BYTES = 4096;

/** Null when it is not what the kernel writes there. */
export function parsePressure(text: string): Pressure | null {
  const some = line(text, 'some');
  return some === null ? null : { some, full: line(text, 'full') };
}

/** Null when the kernel counts none (`psi=0`), or the file is gone. */
export function readPressure(path: string): Pressure | null {
  try {
    return parsePressure(readKernelFile(path));
  } catch {
    return null;
  }
}

function line(text: string, kind: string): PressureLine | null {
  const match = new RegExp(`^${kind} avg10=([\\d.]+) avg60=[\\d.]+ avg300=[\\d.]+ total=(\\d+)$`, 'm').exec(
    text,
  );
  if (match === null) return null;
  const [avg10 = 0, totalUs = 0] = match.slice(1).map(Number);
  return { avg10, totalUs };
}

/**
 * Calls back when a threshold is crossed, at most once a window, with the pressure as it is then; and once with null
 * when the cgroup is gone, after which it is closed. The kernel looks by itself: nothing is polled by time.
 */
export class PressureTrigger {
  readonly #fd: number;
  readonly #poller: Poller;
  readonly #onPressure: (pressure: Pressure | null) => void;
  #open = true;

  /** Throws an error with `code`: EACCES (may not be written), EINVAL or EPERM (this window takes CAP_SYS_RESOURCE),
   * EOPNOTSUPP (`psi=0`), ENOENT. */
  constructor(path: string, threshold: PressureThreshold, onPressure: (pressure: Pressure | null) => void) {
    this.#onPressure = onPressure;
    this.#fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    try {
      writeSync(this.#fd, `${threshold.kind} ${threshold.stallUs} ${threshold.windowUs}\0`);
      this.#poller = new Poller(this.#fd, PRIORITIZED, () => this.#ready());
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** Nothing is called back after this. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#poller.close();
    closeSync(this.#fd);
  }

  #ready(): void {
    const buffer = Buffer.alloc(MAX_READ_BYTES);
    let text = '';
    try {
      text = buffer.toString('latin1', 0, readSync(this.#fd, buffer, 0, buffer.length, 0));
    } catch (error) {
      // Its cgroup was removed: the file would be ready for ever.
      if (codeOf(error) !== 'EAGAIN') this.close();
    }
    if (!this.#open) this.#onPressure(null);
    const pressure = parsePressure(text);
    if (this.#open && pressure !== null) this.#onPressure(pressure);
  }
}
