import { constants, promises as fs } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import type { TraceLine } from '../../protocol/policy-trace.js';

/** Lines that may wait for a slow disk; lines beyond that are dropped. */
const BACKLOG_LIMIT_BYTES = 4 * 2 ** 20;
/** A disk that was full is tried again after so long. */
const RETRY_MS = 60_000;

/** The recording may be a pipe that nobody reads, or a link into somebody's file: neither is opened. */
const FLAGS =
  constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOFOLLOW;

interface RecorderOptions {
  /** Of the file and of the part before it (`.1`) together. */
  readonly maxBytes: number;
  /** Called for each failure after which the recorder pauses. */
  readonly failed: (reason: string) => void;
  readonly retryMs?: number;
}

/**
 * Appends to a file what the policy saw at each tick, for the simulator. At half of what it may take up, the file is
 * renamed and a new one begun. Nothing is waited for, and a disk that takes nothing costs lines and nothing else: each
 * line is whole or not there.
 */
export class PolicyRecorder {
  readonly #path: string;
  readonly #options: RecorderOptions;
  #file: FileHandle | null = null;
  #sizeBytes = 0;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | null = null;
  #pausedUntil = -Infinity;
  #closed = false;

  constructor(path: string, options: RecorderOptions) {
    this.#path = path;
    this.#options = options;
  }

  write(line: TraceLine): void {
    const now = performance.now();
    if (this.#closed || now < this.#pausedUntil || this.#waitingBytes > BACKLOG_LIMIT_BYTES) return;
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#writing ??= this.#drain().finally(() => (this.#writing = null));
  }

  /** Resolves when all lines are written, or are not going to be. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing;
    await this.#file?.close().catch(() => undefined);
    this.#file = null;
  }

  async #drain(): Promise<void> {
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        this.#waitingBytes -= next.length;
        await this.#append(next);
      }
    } catch (error) {
      this.#waiting = [];
      this.#waitingBytes = 0;
      this.#pausedUntil = performance.now() + (this.#options.retryMs ?? RETRY_MS);
      // A part of a line would be no line of a trace.
      await this.#file?.truncate(this.#sizeBytes).catch(() => undefined);
      await this.#file?.close().catch(() => undefined);
      this.#file = null;
      this.#options.failed(error instanceof Error ? error.message : String(error));
    }
  }

  async #append(bytes: Buffer): Promise<void> {
    const file = await this.#roomFor(bytes.length);
    for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at)).bytesWritten;
    this.#sizeBytes += bytes.length;
  }

  async #roomFor(length: number): Promise<FileHandle> {
    const file = this.#file ?? (await this.#open());
    if (this.#sizeBytes === 0 || this.#sizeBytes + length <= this.#options.maxBytes / 2) return file;
    await file.close();
    this.#file = null;
    await fs.rename(this.#path, `${this.#path}.1`);
    return this.#open();
  }

  async #open(): Promise<FileHandle> {
    const file = await fs.open(this.#path, FLAGS, 0o640);
    const stat = await file.stat();
    if (!stat.isFile()) {
      await file.close();
      throw new Error(`${this.#path} is no plain file`);
    }
    this.#sizeBytes = stat.size;
    this.#file = file;
    return file;
  }
}
