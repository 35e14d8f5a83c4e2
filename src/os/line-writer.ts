import { checked, SystemError } from './errors.js';
import { native, type WriterHandle } from './native.js';

/** What may wait to be written, in bytes: more than a thousand lines. */
const MOST_BYTES = 256 * 1024;
/** How often a writer that dropped lines is looked at. */
const LOOK_MS = 500;
/** At the end of the process: how long the next line may take, and all of them together. */
const FLUSH_STEP_MS = 1000;
const FLUSH_MS = 2000;

/**
 * Lines that go to a file descriptor whatever becomes of it: a full disk, a reader that stalls or is gone, a terminal
 * that was closed. `write()` neither waits nor fails, because a thread of the native helper does the writing
 * (src/native/writer.c says why nothing less will do). Lines wait in memory, MOST_BYTES of them and no more, are tried
 * again until they are written, and are dropped and counted beyond that.
 */
export class LineWriter {
  readonly #handle: WriterHandle;
  readonly #state = new Float64Array(4);
  readonly #encoder = new TextEncoder();
  #timer: NodeJS.Timeout | null = null;
  #told = 0;
  /** Is called with the number of lines that were dropped, when lines can be written again. */
  onDropped: (lines: number) => void = () => undefined;

  /** Keeps a copy of `fd`. Throws SystemError when `fd` is not open, or no thread can be had. */
  constructor(fd: number) {
    const handle = native.openWriter(fd, MOST_BYTES);
    if (typeof handle === 'number') throw new SystemError(-handle, 'open a writer for', `fd ${fd}`);
    this.#handle = handle;
  }

  /** `line` ends with a newline. */
  write(line: string): void {
    const bytes = this.#encoder.encode(line);
    if (bytes.length === 0 || native.writeLine(this.#handle, bytes, bytes.length) === 1) return;
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS).unref();
  }

  /** For the end of the process: waits two seconds at most, and a second for a line that cannot be written. */
  flush(): void {
    native.flushWriter(this.#handle, FLUSH_STEP_MS, FLUSH_MS);
  }

  /** What still waits is lost. */
  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    native.closeWriter(this.#handle);
  }

  /** Lines were dropped because the room was used up: once half of it is free, lines are written again. */
  #look(): void {
    checked(native.writerState(this.#handle, this.#state), 'look at a writer');
    const [waitingBytes = 0, , dropped = 0, error = 0] = this.#state;
    if (error !== 0 || waitingBytes > MOST_BYTES / 2) return;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    const lines = dropped - this.#told;
    this.#told = dropped;
    this.onDropped(lines);
  }
}
