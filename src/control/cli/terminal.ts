/** A terminal that a program has to itself for a while, and that is put back however the program ends. */
import type { ReadStream } from 'node:tty';
import { KeyDecoder, type Key } from './keys.js';

/** The other screen, without cursor; lines that are too long are cut, not wrapped. */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
/** For the rest of a sequence of which the begin came: less than anybody notices. */
const ESCAPE_MS = 50;
/** Of a process that runs: what it is stopped does not count. */
const RETURN_MS = 20;
const COLUMNS = 80;
const ROWS = 24;
const SIGNALS = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'] as const;

/** What shows the lines: src/os/print.ts's `stdout`. */
interface Screen {
  readonly columns: number | undefined;
  readonly rows: number | undefined;
  write(text: string): void;
  on(event: 'resize', listener: () => void): void;
  off(event: 'resize', listener: () => void): void;
}

export class Terminal {
  readonly #input: ReadStream;
  readonly #output: Screen;
  readonly #decoder = new KeyDecoder();
  readonly #onKey: (key: Key) => void;
  readonly #onResize: () => void;
  readonly #onEnd: () => void;
  #taken = false;
  #timer: NodeJS.Timeout | null = null;

  /** `onEnd` is called when a signal asks the program to end, or its terminal went away. */
  constructor(
    { input, output }: { input: ReadStream; output: Screen },
    { onKey, onResize, onEnd }: { onKey: (key: Key) => void; onResize: () => void; onEnd: () => void },
  ) {
    this.#input = input;
    this.#output = output;
    this.#onKey = onKey;
    this.#onResize = onResize;
    this.#onEnd = onEnd;
  }

  get columns(): number {
    return this.#output.columns ?? COLUMNS;
  }

  get rows(): number {
    return this.#output.rows ?? ROWS;
  }

  open(): void {
    // Also where an exception ends the process.
    process.on('exit', this.#leave);
    for (const signal of SIGNALS) process.on(signal, this.#onEnd);
    this.#input.on('data', this.#data);
    this.#input.on('end', this.#onEnd);
    this.#output.on('resize', this.#onResize);
    this.#enter();
  }

  close(): void {
    this.#leave();
    process.off('exit', this.#leave);
    for (const signal of SIGNALS) process.off(signal, this.#onEnd);
    this.#input.off('data', this.#data);
    this.#input.off('end', this.#onEnd);
    this.#output.off('resize', this.#onResize);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#input.pause();
  }

  /** Stops the process, as Ctrl-Z does; its shell has the terminal meanwhile. Without a shell to continue it, it goes on. */
  suspend(): void {
    this.#leave();
    process.kill(process.pid, 'SIGTSTP');
    // Not at SIGCONT: the kernel stops nothing in a group of processes that no shell could continue.
    setTimeout(() => {
      this.#enter();
      this.#onResize();
    }, RETURN_MS);
  }

  /** Shows these lines and nothing else. */
  draw(lines: readonly string[]): void {
    if (!this.#taken) return;
    this.#output.write(`\x1b[H${lines.map((line) => `${line}\x1b[K`).join('\r\n')}\x1b[J`);
  }

  #enter(): void {
    this.#input.setRawMode(true);
    this.#input.resume();
    this.#output.write(ENTER);
    this.#taken = true;
  }

  readonly #leave = (): void => {
    if (!this.#taken) return;
    this.#taken = false;
    this.#output.write(LEAVE);
    this.#input.setRawMode(false);
  };

  readonly #data = (data: Buffer): void => {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    for (const key of this.#decoder.push(data.toString())) this.#onKey(key);
    if (!this.#decoder.waits) return;
    this.#timer = setTimeout(() => {
      for (const key of this.#decoder.flush()) this.#onKey(key);
    }, ESCAPE_MS);
  };
}
