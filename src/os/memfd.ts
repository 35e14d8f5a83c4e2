import { checked } from './errors.js';
import { native } from './native.js';

/** A close-on-exec file in memory of `size` bytes, of huge pages where asked (a power of two, a multiple of which `size` is). */
export function createMemfd(name: string, size: number, options: { hugePageBytes?: number } = {}): number {
  const shift = options.hugePageBytes === undefined ? 0 : Math.log2(options.hugePageBytes);
  return checked(native.memfd(name, size, shift), 'memfd_create', `of ${size} bytes`);
}

/** From now on nobody can change what is in it, nor its size. */
export function sealMemfd(fd: number): void {
  checked(native.seal(fd), 'fcntl');
}
