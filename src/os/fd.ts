import { checked } from './errors.js';
import { native } from './native.js';

/** Who wants to know when an fd is closed. */
const watched = new Map<number, () => void>();

/** Throws EBADF when it is not open. */
export function closeFd(fd: number): void {
  const closed = watched.get(fd);
  watched.delete(fd);
  checked(native.close(fd), 'close');
  closed?.();
}

/** Calls back once, after closeFd(fd). */
export function whenClosed(fd: number, closed: () => void): void {
  watched.set(fd, closed);
}

/** A second, close-on-exec number for the same open file. */
export function duplicateFd(fd: number): number {
  return checked(native.duplicate(fd), 'fcntl');
}

/** For the open file: whoever shares it sees it too. */
export function setNonBlocking(fd: number): void {
  checked(native.setNonBlocking(fd), 'fcntl');
}

/** The offset of the open file, which everyone who has it open shares. */
export function fileOffset(fd: number): number {
  return checked(native.offset(fd), 'lseek');
}

export function setFileOffset(fd: number, offset: number): void {
  checked(native.setOffset(fd, offset), 'lseek');
}

/** Frees that part of a file; it reads as zeros then. */
export function punchHole(fd: number, offset: number, length: number): void {
  checked(native.punch(fd, offset, length), 'fallocate');
}
