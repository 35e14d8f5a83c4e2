import { closeSync, constants, openSync, promises, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { HOST_PATHS } from './host-paths.js';
import { DEFAULT_THRESHOLD, PressureTrigger, readPressure, type Pressure } from './pressure.js';

/** Bytes, or null for `max`: no limit. */
export type Limit = number | null;

/** What is to be changed; what is left out stays. */
export interface Limits {
  highBytes?: Limit | undefined;
  maxBytes?: Limit | undefined;
}

/** One look at a cgroup's memory, as Documentation/admin-guide/cgroup-v2.rst names it. */
export interface CgroupReading {
  currentBytes: number;
  /** Null before Linux 5.19. */
  peakBytes: number | null;
  highBytes: Limit;
  maxBytes: Limit;
  minBytes: Limit;
  lowBytes: Limit;
  /** memory.stat: bytes or counts by name. */
  stat: Readonly<Record<string, number>>;
  /** memory.events: how often each happened: `low`, `high`, `max`, `oom`, `oom_kill`, … */
  events: Readonly<Record<string, number>>;
  /** Null: PSI is switched off. */
  pressure: Pressure | null;
}

const FILES = { highBytes: 'memory.high', maxBytes: 'memory.max' } as const;

/** The memory of one cgroup (v2). It may vanish at any time. */
export class VmCgroup {
  /** Below the mount point, as in /proc/PID/cgroup: `/machine.slice/…`. */
  readonly path: string;
  readonly folder: string;
  /** Writes follow each other in the order in which they were asked for. */
  #last: Promise<void> = Promise.resolve();

  constructor(path: string, mount = HOST_PATHS.cgroup) {
    this.path = path;
    this.folder = join(mount, path);
  }

  /** Null when the cgroup is gone. Throws an error with `code` when it may not be read. */
  read(): CgroupReading | null {
    const usage = this.usage();
    const highBytes = this.#limit('memory.high');
    const maxBytes = this.#limit('memory.max');
    if (usage === null || highBytes === undefined || maxBytes === undefined) return null;
    return {
      ...usage,
      peakBytes: this.#limit('memory.peak') ?? null,
      highBytes,
      maxBytes,
      minBytes: this.#limit('memory.min') ?? null,
      lowBytes: this.#limit('memory.low') ?? null,
      events: parseCounts(this.#text('memory.events') ?? ''),
    };
  }

  /** What is used, for what, and who waits for it, at a third of the cost of read(), and with its errors. */
  usage(): Pick<CgroupReading, 'currentBytes' | 'stat' | 'pressure'> | null {
    const currentBytes = this.#limit('memory.current');
    if (currentBytes === undefined) return null;
    const stat = parseCounts(this.#text('memory.stat') ?? '');
    return { currentBytes: currentBytes ?? 0, stat, pressure: this.pressure() };
  }

  /** Null: PSI is switched off, or the cgroup is gone. */
  pressure(): Pressure | null {
    return readPressure(join(this.folder, 'memory.pressure'));
  }

  /** What is used and the two limits, at a third of the cost of read(); null when the cgroup is gone. */
  limits(): { currentBytes: number; highBytes: Limit; maxBytes: Limit } | null {
    const currentBytes = this.#limit('memory.current') ?? 0;
    const highBytes = this.#limit('memory.high');
    const maxBytes = this.#limit('memory.max');
    return highBytes === undefined || maxBytes === undefined ? null : { currentBytes, highBytes, maxBytes };
  }

  /**
   * Raises at once, before it returns: raising never waits. Throws an error with `code` (ENOENT or ENODEV: gone;
   * EACCES, EROFS) and has then perhaps raised one of the two. What would be lowered is left.
   */
  raise(limits: Limits): void {
    const now = this.limits();
    for (const name of ['maxBytes', 'highBytes'] as const) {
      const wanted = limits[name];
      if (wanted !== undefined && (now === null || isAbove(wanted, now[name]))) this.put({ [name]: wanted });
    }
  }

  /**
   * Sets at once, before it returns; for values above what is charged, where the kernel has nothing to reclaim.
   * Throws as raise() does.
   */
  put(limits: Limits): void {
    for (const name of ['maxBytes', 'highBytes'] as const) {
      const wanted = limits[name];
      if (wanted === undefined) continue;
      const fd = openSync(join(this.folder, FILES[name]), constants.O_WRONLY | constants.O_TRUNC);
      try {
        writeSync(fd, limitText(wanted));
      } finally {
        closeSync(fd);
      }
    }
  }

  /**
   * Sets, on a thread: lowering makes the kernel reclaim, below `max` even kill, before the write returns. High goes
   * first, so that reclaim is tried before it is forced. Rejects with an error with `code`, as raise() throws.
   */
  set(limits: Limits): Promise<void> {
    const done = this.#last.then(async () => {
      for (const name of ['highBytes', 'maxBytes'] as const) {
        const wanted = limits[name];
        if (wanted === undefined) continue;
        const file = await promises.open(
          join(this.folder, FILES[name]),
          // Linux 6.16 leaves the reclaim to those who allocate next, when the file is opened like this.
          constants.O_WRONLY | constants.O_TRUNC | constants.O_NONBLOCK,
        );
        try {
          await file.write(limitText(wanted));
        } finally {
          await file.close();
        }
      }
    });
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** Calls back as PressureTrigger does, and throws what it throws. */
  watchPressure(
    onPressure: (pressure: Pressure | null) => void,
    threshold = DEFAULT_THRESHOLD,
  ): PressureTrigger {
    return new PressureTrigger(join(this.folder, 'memory.pressure'), threshold, onPressure);
  }

  /** Undefined when there is no such file. */
  #limit(file: string): Limit | undefined {
    const text = this.#text(file);
    if (text === undefined) return undefined;
    return text.trim() === 'max' ? null : Number(text);
  }

  #text(file: string): string | undefined {
    try {
      return readFileSync(join(this.folder, file), 'latin1');
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }
}

/** Whether a file of a cgroup could not be used because the cgroup is no more. */
export function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENODEV');
}

/** Null is above all numbers. */
export function isAbove(a: Limit, b: Limit): boolean {
  return b !== null && (a === null || a > b);
}

function limitText(limit: Limit): string {
  return limit === null ? 'max' : String(limit);
}

function parseCounts(text: string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of text.split('\n')) {
    const [name, value] = line.split(' ');
    if (name !== undefined && name !== '' && value !== undefined) counts[name] = Number(value);
  }
  return counts;
}
