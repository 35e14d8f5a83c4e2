/**
 * The samples of the last hour, in a file in memory that outlives the process: a ring in which each sample takes the place
 * of the one an hour before. The file has a fixed size, and takes up memory only as far as there are series.
 *
 *      0  magic, layout version, size of the file
 *     64  the time of each sample
 *   4096  series: the length of its name, its name, and a value for each sample (NaN: none)
 */
import { fstatSync } from 'node:fs';
import { SAMPLE_MS, SAMPLES, type LiveHistory } from '../../protocol/control/live.js';
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import { Mapping } from '../os/mapping.js';
import { createMemfd } from '../os/memfd.js';

const FILE_BYTES = 4 * 2 ** 20;
const MAGIC = 0x7473_6968; // "hist"
const LAYOUT_VERSION = 1;
const TIMES_AT = 64;
const SERIES_AT = 4096;
const NAME_AT = 4;
const NAME_BYTES = 188;
const VALUES_AT = NAME_AT + NAME_BYTES;
const SERIES_BYTES = VALUES_AT + SAMPLES * 4;
/** Series that there is room for; the rest have no history. */
const SERIES_MAX = Math.floor((FILE_BYTES - SERIES_AT) / SERIES_BYTES);
const HISTORY_MS = SAMPLES * SAMPLE_MS;

interface Series {
  readonly at: number;
  readonly values: Float32Array;
  /** The last sample that had a value. */
  seen: number;
}

export class HistoryMemory {
  readonly fd: number;
  readonly #mapping: Mapping;
  readonly #buffer: ArrayBuffer;
  readonly #times: Float64Array;
  readonly #series = new Map<string, Series>();
  readonly #free: number[] = [];

  private constructor(fd: number, mapping: Mapping) {
    this.fd = fd;
    this.#mapping = mapping;
    this.#buffer = mapping.view(0, FILE_BYTES);
    this.#times = new Float64Array(this.#buffer, TIMES_AT, SAMPLES);
    for (let index = SERIES_MAX - 1; index >= 0; index--) this.#find(SERIES_AT + index * SERIES_BYTES);
  }

  /** An empty one. Throws SystemError. */
  static create(): HistoryMemory {
    const fd = createMemfd('balloond-history', FILE_BYTES);
    try {
      const memory = new HistoryMemory(fd, Mapping.map(fd, 0, FILE_BYTES));
      memory.#head.set([MAGIC, LAYOUT_VERSION, FILE_BYTES]);
      return memory;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /** Goes on with one that a process before this one left; null: it is none that this build reads. `fd` stays the caller's. */
  static open(fd: number): HistoryMemory | null {
    if (fstatSync(fd).size !== FILE_BYTES) return null;
    let mapping: Mapping;
    try {
      mapping = Mapping.map(fd, 0, FILE_BYTES);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      return null;
    }
    const head = new Uint8Array(12);
    mapping.read(0, head, 0, head.length);
    const [magic, layout, lenBytes] = new Uint32Array(head.buffer);
    if (magic === MAGIC && layout === LAYOUT_VERSION && lenBytes === FILE_BYTES)
      return new HistoryMemory(fd, mapping);
    mapping.close();
    return null;
  }

  /** Remembers a sample, unless there is one of the same ten seconds. `time`: milliseconds since the epoch. */
  add(time: number, samples: ReadonlyMap<string, number>): void {
    const sample = Math.floor(time / SAMPLE_MS);
    const slot = sample % SAMPLES;
    if (Math.floor((this.#times[slot] ?? 0) / SAMPLE_MS) === sample) return;
    // Until all values are there, the slot is that of no sample.
    this.#times[slot] = 0;
    for (const [name, series] of this.#series) {
      const value = samples.get(name);
      series.values[slot] = value ?? NaN;
      if (value !== undefined) series.seen = time;
      else if (Math.abs(time - series.seen) >= HISTORY_MS) this.#forget(name, series);
    }
    for (const [name, value] of samples) if (!this.#series.has(name)) this.#begin(name, slot, value, time);
    this.#times[slot] = time;
  }

  /** The samples of the hour before `now`, of the series that are wanted. */
  read(now: number, wanted: (name: string) => boolean): LiveHistory {
    const slots = Array.from(this.#times, (time, slot) => ({ time, slot }))
      .filter(({ time }) => time > now - HISTORY_MS && time <= now)
      .sort((a, b) => a.time - b.time);
    const series: Record<string, (number | null)[]> = {};
    for (const [name, { values }] of this.#series) {
      if (!wanted(name)) continue;
      const read = slots.map(({ slot }) => values[slot] ?? NaN);
      Object.defineProperty(series, name, {
        enumerable: true,
        value: read.map((value) => (Number.isFinite(value) ? value : null)),
      });
    }
    return { times: slots.map(({ time }) => time), series };
  }

  close(): void {
    this.#mapping.close();
    closeFd(this.fd);
  }

  get #head(): Uint32Array {
    return new Uint32Array(this.#buffer, 0, 3);
  }

  #lengthAt(at: number): Uint32Array {
    return new Uint32Array(this.#buffer, at, 1);
  }

  #valuesAt(at: number): Float32Array {
    return new Float32Array(this.#buffer, at + VALUES_AT, SAMPLES);
  }

  #find(at: number): void {
    const [length = 0] = this.#lengthAt(at);
    const name = new TextDecoder().decode(
      new Uint8Array(this.#buffer, at + NAME_AT, Math.min(length, NAME_BYTES)).slice(),
    );
    if (length === 0 || length > NAME_BYTES || this.#series.has(name)) {
      this.#free.push(at);
      return;
    }
    const values = this.#valuesAt(at);
    const seen = this.#times.reduce(
      (last, time, slot) => (Number.isFinite(values[slot]) ? Math.max(last, time) : last),
      0,
    );
    this.#series.set(name, { at, values, seen });
  }

  #begin(name: string, slot: number, value: number, time: number): void {
    const text = new TextEncoder().encode(name);
    const at = text.length > NAME_BYTES ? undefined : this.#free.pop();
    if (at === undefined) return;
    const values = this.#valuesAt(at).fill(NaN);
    values[slot] = value;
    new Uint8Array(this.#buffer, at + NAME_AT, NAME_BYTES).set(text);
    this.#lengthAt(at)[0] = text.length;
    this.#series.set(name, { at, values, seen: time });
  }

  #forget(name: string, { at }: Series): void {
    this.#lengthAt(at)[0] = 0;
    this.#series.delete(name);
    this.#free.push(at);
  }
}

/** Goes on with the first of these files that can be read, and closes the others. Throws SystemError when there can be no file. */
export function takeOverHistory(files: readonly number[]): HistoryMemory {
  let memory: HistoryMemory | null = null;
  for (const fd of files) {
    const opened: HistoryMemory | null = memory === null ? HistoryMemory.open(fd) : null;
    if (opened === null) closeFd(fd);
    else memory = opened;
  }
  return memory ?? HistoryMemory.create();
}
