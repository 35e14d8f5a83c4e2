import { checked } from './errors.js';
import { native } from './native.js';

/** Throws EBADF when it is not open. */
export function closeFd(fd: number): void {
  checked(native.close(fd), 'close');
}

/** A second, close-on-exec number for the same open file. */
export function duplicateFd(fd: number): number {
  return checked(native.duplicate(fd), 'fcntl');
}

/** For the open file: whoever shares it sees it too. */
export function setNonBlocking(fd: number): void {
  checked(native.setNonBlocking(fd), 'fcntl');
}
