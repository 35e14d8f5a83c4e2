import { closeSync, readlinkSync } from 'node:fs';

/**
 * Has the process end with its own exit code when a terminal that it began on was closed meanwhile. Node gives terminals
 * on the descriptors 0 to 2 their modes back as it ends, and aborts where the kernel refuses (EIO); a descriptor that is
 * closed by then is left alone.
 */
export function outliveTerminals(): void {
  process.on('exit', () => {
    for (const fd of [0, 1, 2].filter(isTerminal)) {
      // The kernel takes one that was closed for no terminal any more.
      if (!process.getBuiltinModule('node:tty').isatty(fd)) closeSync(fd);
    }
  });
}

function isTerminal(fd: number): boolean {
  try {
    return /^\/dev\/(pts\/|tty|console)/.test(readlinkSync(`/proc/self/fd/${fd}`));
  } catch {
    return false;
  }
}
