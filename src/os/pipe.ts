/** Pipes, and all that can be read and written like them without waiting (setNonBlocking). */
import { readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { SystemError } from './errors.js';

/** Reads what is there, as far as it goes into `into`. Returns the bytes read, 0 at the end, -1 when there are none yet. */
export function readSome(fd: number, into: Uint8Array): number {
  return attempt('read', () => readSync(fd, into));
}

/** Writes of `from` what there is room for, from `offset` on. Returns the bytes written, -1 when there is no room. */
export function writeSome(fd: number, from: Uint8Array, offset: number): number {
  return attempt('write', () => writeSync(fd, from, offset));
}

function attempt(syscall: string, call: () => number): number {
  try {
    return call();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'EAGAIN') return -1;
    const errno = constants.errno[code as keyof typeof constants.errno] as number | undefined;
    throw errno === undefined ? error : new SystemError(errno, syscall);
  }
}
