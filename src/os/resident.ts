import { checked } from './errors.js';
import { closeFd } from './fd.js';
import { SYSTEM_PAGE_BYTES } from './file.js';
import { Mapping } from './mapping.js';
import { createMemfd } from './memfd.js';
import { native } from './native.js';

/** Ways to see what a file holds, in the order of preference; the helper knows them by position. */
const METHODS = ['cachestat', 'mincore'] as const;
export type ResidentMethod = (typeof METHODS)[number];

let probed: ResidentMethod | null | undefined;

/**
 * The best method that this kernel has and that this process may use, tried once on a memory file of our own; null: there
 * is none. cachestat (Linux 6.5) takes a microsecond for a hole of any length, mincore some nanoseconds for each page.
 */
export function probeResident(): ResidentMethod | null {
  if (probed === undefined) probed = METHODS.find((method) => works(method)) ?? null;
  return probed;
}

/**
 * Writes into `bytes` how many bytes of each of `count` ranges the shmem file `fd` behind the mapping holds, in memory or
 * (with cachestat) in swap. Ranges are pairs of offset and length in bytes inside the mapping, whole pages. Nothing is
 * touched: a hole stays a hole. Throws SystemError.
 */
export function residentBytes(
  mapping: Mapping,
  fd: number,
  ranges: Float64Array,
  count: number,
  bytes: Float64Array,
  method: ResidentMethod,
): void {
  checked(native.resident(mapping.handle, fd, ranges, count, METHODS.indexOf(method), bytes), method);
}

/**
 * Whether the file reads as zeros there, as it would if the pages were gone. Reads the file and not the mapping, so a hole
 * stays a hole. Throws SystemError, with ENXIO where the file ends before.
 */
export function readsAsZeros(mapping: Mapping, fd: number, offset: number, lenBytes: number): boolean {
  return checked(native.readsAsZeros(mapping.handle, fd, offset, lenBytes), 'pread') === 1;
}

function works(method: ResidentMethod): boolean {
  const page = SYSTEM_PAGE_BYTES;
  const fd = createMemfd('balloond-probe', 2 * page);
  try {
    const mapping = Mapping.map(fd, 0, 2 * page);
    try {
      mapping.write(0, Uint8Array.of(1), 0, 1);
      const bytes = new Float64Array(2);
      const ranges = Float64Array.of(0, page, page, page);
      const failed = native.resident(mapping.handle, fd, ranges, 2, METHODS.indexOf(method), bytes) < 0;
      return !failed && bytes[0] === page && bytes[1] === 0;
    } finally {
      mapping.close();
    }
  } finally {
    closeFd(fd);
  }
}
