// What commands print, on stdout and stderr. A command waits for its reader, as every filter does, and a signal ends it
// meanwhile; the daemon and its keeper have LineWriter instead, which waits for nobody. No other module touches
// process.stdout, process.stderr or console: the linter sees to it.
import type { NextStep } from '../../protocol/control/refusal.js';
import { writeSync } from 'node:fs';
import { basename } from 'node:path';
import { isatty } from 'node:tty';

const STDOUT = 1;
const STDERR = 2;
/** Before a non-blocking descriptor (some other process made it so) is tried again. */
const RETRY_MS = 5;
const FAILED = 1;

const REMEDIES: Readonly<Record<string, NextStep>> = {
  ENOSPC: 'free space there, or send it elsewhere',
  EDQUOT: 'free space there, or send it elsewhere',
  EFBIG: 'allow larger files (ulimit -f), or send it elsewhere',
};

/**
 * Standard output. A reader that went away, such as `head`, ends the process with 0 and without a word; any other
 * failure ends it with 1 and one line on stderr.
 */
export const stdout = {
  get isTTY(): boolean {
    return isatty(STDOUT);
  },
  /** Of the terminal; undefined when stdout is none. */
  get columns(): number | undefined {
    return this.isTTY ? process.stdout.columns || undefined : undefined;
  },
  get rows(): number | undefined {
    return this.isTTY ? process.stdout.rows || undefined : undefined;
  },
  /** The terminal has another size. */
  on(event: 'resize', listener: () => void): void {
    process.stdout.on(event, listener);
  },
  off(event: 'resize', listener: () => void): void {
    process.stdout.off(event, listener);
  },
  write(text: string): void {
    const error = writeAll(STDOUT, text);
    if (error === null) return;
    if (error.code === 'EPIPE') process.exit(0);
    const code = error.code ?? error.message;
    const step: NextStep = REMEDIES[code] ?? 'send it elsewhere';
    stderr.write(`${program()}: what was asked for cannot be written to stdout (${code}): ${step}\n`);
    process.exit(FAILED);
  },
};

/** Standard error. When it takes nothing there is nobody to tell: the exit code says the rest. */
export const stderr = {
  write(text: string): void {
    writeAll(STDERR, text);
  },
};

/** Whether stderr is a terminal. */
export function stderrIsTerminal(): boolean {
  return isatty(STDERR);
}

function writeAll(fd: number, text: string): NodeJS.ErrnoException | null {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      const failure = error as NodeJS.ErrnoException;
      if (failure.code !== 'EAGAIN') return failure;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
  return null;
}

function program(): string {
  return basename(process.argv[1] ?? 'balloonctl', '.js');
}
