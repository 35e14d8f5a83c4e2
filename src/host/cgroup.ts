/**
 * The host as the kernel's files in /proc and /sys/fs/cgroup show it: nothing here keeps state of VMs. src/daemon and src/vm call peer
 * (name and mappings of a VMM) when a VM connects; src/vm calls find-cgroup and then cgroup (this file) for limits, and pinned for devices that
 * pin memory; src/governor calls meminfo and pressure at each tick. host-paths says where the files are, so that tests can
 * have others; service-manager asks systemd for its version.
 */
import { closeSync, constants, openSync, promises, writeSync } from 'node:fs';
import { join } from 'node:path';
import { LIMIT_NAMES, LIMITS, type LimitField } from '../../protocol/control/limits.js';
import { readKernelFile } from '../os/kernel-file.js';
import { HOST_PATHS } from './host-paths.js';
import { DEFAULT_THRESHOLD, PressureTrigger, readPressure, type Pressure } from './pressure.js';

/** Bytes, or null for `max`: no limit. */
export type Limit = number | null;

/** What is to be changed; what is left out stays. */
type Limits = { readonly [Field in LimitField]?: Limit | undefined };

/** The limits of a cgroup as they are. */
export type LimitsNow = { readonly [Field in LimitField]: Limit };

/** One look at a cgroup's memory, as Documentation/admin-guide/cgroup-v2.rst names it. */
export interface CgroupReading extends LimitsNow {
  readonly currentBytes: number;
  /** memory.stat: bytes or counts by name. */
  readonly stat: Readonly<Record<string, number>>;
  /** Null: PSI is switched off. */
  readonly pressure: Pressure | null;
}

/** The part of a reading that tells how much is used, for what, and who waits for memory. */
export type CgroupUsage = Pick<CgroupReading, 'currentBytes' | 'stat' | 'pressure'>;

/** The memory of one cgroup (v2). It may vanish at any time. */
export class Cgroup {
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
    const limits = this.#limits();
    return usage === null || limits === null ? null : { ...usage, ...limits };
  }

  /** What is used, for what, and who waits for it, at a third of the cost of read(), and with its errors. */
  usage(): CgroupUsage | null {
    const currentBytes = this.#value('memory.current');
    if (currentBytes === undefined) return null;
    const stat = parseCounts(this.#text('memory.stat') ?? '');
    return { currentBytes: currentBytes ?? 0, stat, pressure: this.pressure() };
  }

  /** Null: PSI is switched off, or the cgroup is gone. */
  pressure(): Pressure | null {
    return readPressure(join(this.folder, 'memory.pressure'));
  }

  /** The memory that is used, and the limits, at a third of the cost of read(); null when the cgroup is gone. */
  limits(): ({ currentBytes: number } & LimitsNow) | null {
    const currentBytes = this.#value('memory.current') ?? 0;
    const limits = this.#limits();
    return limits === null ? null : { currentBytes, ...limits };
  }

  /**
   * Sets at once, before it returns; for values above what is charged, where the kernel has nothing to reclaim.
   * Throws an error with `code`: ENOENT or ENODEV (gone), EACCES, EROFS.
   */
  put(limits: Limits): void {
    for (const name of LIMIT_NAMES.toReversed()) {
      const { file, field } = LIMITS[name];
      const wanted = limits[field];
      if (wanted === undefined) continue;
      const fd = openSync(join(this.folder, file), constants.O_WRONLY | constants.O_TRUNC);
      try {
        writeSync(fd, limitText(wanted));
      } finally {
        closeSync(fd);
      }
    }
  }

  /**
   * Sets, on a thread: lowering makes the kernel reclaim, below `max` even kill, before the write returns. High goes
   * first, so that reclaim is tried before it is forced. Rejects with an error with `code`, as put() throws.
   */
  set(limits: Limits): Promise<void> {
    const done = this.#last.then(async () => {
      for (const name of LIMIT_NAMES) {
        const wanted = limits[LIMITS[name].field];
        if (wanted === undefined) continue;
        const file = await promises.open(
          join(this.folder, LIMITS[name].file),
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

  #limits(): LimitsNow | null {
    const limits: Partial<Record<LimitField, Limit>> = {};
    for (const name of LIMIT_NAMES) {
      const limit = this.#value(LIMITS[name].file);
      if (limit === undefined) return null;
      limits[LIMITS[name].field] = limit;
    }
    return limits as LimitsNow;
  }

  /** Undefined when there is no such file. */
  #value(file: string): Limit | undefined {
    const text = this.#text(file);
    if (text === undefined) return undefined;
    return text.trim() === 'max' ? null : Number(text);
  }

  #text(file: string): string | undefined {
    try {
      return readKernelFile(join(this.folder, file));
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
