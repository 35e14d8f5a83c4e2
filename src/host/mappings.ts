import { closeSync, openSync, readSync } from 'node:fs';

/** A part of the address space of a process, as a line of /proc/PID/maps says it. Addresses and offsets are in bytes. */
interface ProcessMapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly shared: boolean;
  /** Of `start` in the file. */
  readonly offset: bigint;
  /** Device and inode of the file; null: it maps no file. */
  readonly file: string | null;
  /** The kernel's word for the file, with newlines escaped. */
  readonly path: string;
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) ...([sp]) ([0-9a-f]+) (\S+) (\d+) *(.*)$/;

/**
 * The mappings of a process in the order of their addresses, read as far as they are asked for. Throws the error of a system
 * call when the process is gone or may not be looked at. /proc/PID/smaps says more, but the kernel then walks all page tables and holds
 * the VMM's lock meanwhile: 8 ms for each GiB that is in use (Linux 6.18).
 */
export function* mappingsOf(pid: number): Generator<ProcessMapping> {
  const fd = openSync(`/proc/${pid}/maps`, 'r');
  try {
    for (const line of linesOf(fd)) {
      const [, start = '', end = '', sharing, offset = '', device, inode, path = ''] = LINE.exec(line) ?? [];
      if (start === '') continue;
      yield {
        start: BigInt(`0x${start}`),
        end: BigInt(`0x${end}`),
        shared: sharing === 's',
        offset: BigInt(`0x${offset}`),
        file: inode === '0' ? null : `${device} ${inode}`,
        path,
      };
    }
  } finally {
    closeSync(fd);
  }
}

function* linesOf(fd: number): Generator<string> {
  const chunk = Buffer.alloc(64 * 1024);
  let rest = '';
  for (;;) {
    const got = readSync(fd, chunk);
    if (got === 0) break;
    const lines = (rest + chunk.toString('latin1', 0, got)).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}
