import { checked } from './errors.js';
import { native } from './native.js';

export function closeFd(fd: number): void {
  checked(native.close(fd), 'close');
}
