// Where a program's stderr may go, and how that fails. Each channel works when the program starts; then it is broken, and
// may be mended.
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '../../src/os/fd.js';
import { bindDatagram, receive } from '../../src/os/socket.js';

const { O_RDONLY, O_RDWR, O_NONBLOCK, O_CREAT, O_WRONLY } = constants;
const TMPFS_BYTES = 2 ** 21;

export interface LogChannel {
  /** Shell: runs "$@" with its stderr there. */
  readonly shell: string;
  readonly format: 'json' | 'journal';
  /** Nobody reads, or nothing fits, any more. `pid`: of the program. */
  break(pid: number): void;
  /** As it was before; null: it cannot be. */
  readonly mend: (() => void) | null;
  /** What has come out until now. */
  text(): string;
  close(): void;
}

type Opened = (folder: string) => LogChannel;

/** A disk, of the program alone, that something else fills. */
function tmpfs(): LogChannel {
  let mount = '';
  return {
    shell: `exec unshare --mount sh -c 'mount -t tmpfs -o size=${TMPFS_BYTES} log /mnt && exec "$@" 2>>/mnt/log' sh "$@"`,
    format: 'json',
    break(pid) {
      mount = `/proc/${pid}/root/mnt`;
      const filler = openSync(join(mount, 'filler'), O_WRONLY | O_CREAT);
      try {
        for (;;) writeSync(filler, Buffer.alloc(4096, 1));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      } finally {
        closeSync(filler);
      }
    },
    mend: () => rmSync(join(mount, 'filler')),
    text: () => (existsSync(join(mount, 'log')) ? readFileSync(join(mount, 'log'), 'utf8') : ''),
    close: () => undefined,
  };
}

interface Fifo {
  readonly path: string;
  readonly text: () => string;
  readonly open: (flags: number) => void;
  /** Leaves no room in it: until it is read, whoever writes waits. */
  readonly fill: () => void;
  readonly close: () => void;
}

function fifo(folder: string): Fifo {
  const path = join(folder, 'stderr');
  execFileSync('mkfifo', [path]);
  let fd: number | null = null;
  let text = '';
  return {
    path,
    open: (flags) => (fd = openSync(path, flags | O_NONBLOCK)),
    text: () => {
      const buffer = Buffer.alloc(65536);
      try {
        for (let got = 1; fd !== null && got > 0;) {
          got = readSync(fd, buffer);
          text += buffer.toString('utf8', 0, got);
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      }
      return text;
    },
    fill: () => {
      try {
        while (fd !== null) writeSync(fd, '\n'.repeat(4096));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      }
    },
    close: () => {
      if (fd !== null) closeSync(fd);
      fd = null;
    },
  };
}

/** Its reader stalls: it has it open. */
export function stalledPipe(folder: string): LogChannel & Pick<Fifo, 'fill'> {
  const pipe = fifo(folder);
  let reads = true;
  pipe.open(O_RDWR);
  return {
    shell: `exec "$@" 2>'${pipe.path}'`,
    format: 'json',
    break: () => (reads = false),
    mend: () => (reads = true),
    text: () => (reads ? pipe.text() : ''),
    fill: pipe.fill,
    close: pipe.close,
  };
}

/** Its reader ends, and another comes. */
function closedPipe(folder: string): LogChannel {
  const pipe = fifo(folder);
  pipe.open(O_RDONLY);
  return {
    shell: `exec "$@" 2>'${pipe.path}'`,
    format: 'json',
    break: pipe.close,
    mend: () => pipe.open(O_RDONLY),
    text: pipe.text,
    close: pipe.close,
  };
}

/** A journal that was stopped: systemd keeps its sockets, both of them, and nobody reads. */
function stoppedJournal(folder: string): LogChannel {
  const stream = stalledPipe(folder);
  const socket = bindDatagram(join(folder, 'socket'));
  let reads = true;
  let text = '';
  return {
    shell: `exec unshare --mount sh -c 'mount -t tmpfs run /run && mkdir -p /run/systemd/journal &&
      mount --bind "${folder}" /run/systemd/journal && exec "$@" 2>"${folder}/stderr"' sh "$@"`,
    format: 'journal',
    break: (pid) => {
      reads = false;
      stream.break(pid);
    },
    mend: () => {
      reads = true;
      stream.mend?.();
    },
    text: () => {
      const buffer = new Uint8Array(300_000);
      while (reads) {
        const fds: number[] = [];
        const got = receive(socket, buffer, 0, buffer.length, fds);
        fds.forEach(closeFd);
        if (got < 0) break;
        text += Buffer.from(buffer.subarray(0, got)).toString();
      }
      return text + stream.text();
    },
    close: () => {
      stream.close();
      closeFd(socket);
    },
  };
}

/** Opens a terminal, writes the process that holds it to the first argument, and execs the rest with stderr on it. */
const ON_A_TERMINAL = `import os, sys
terminal, stderr = os.openpty()
between = os.fork()
if between == 0:
    holder = os.fork()
    if holder == 0:
        os.close(stderr)
        while os.read(terminal, 4096): pass
    with open(sys.argv[1], "w") as file: file.write(str(holder))
    os._exit(0)
os.waitpid(between, 0)
os.close(terminal)
os.dup2(stderr, 2)
os.execvp(sys.argv[2], sys.argv[2:])`;

/** A window or an SSH connection that is closed: writes fail with EIO. */
function closedTerminal(folder: string): LogChannel {
  const holder = join(folder, 'holder');
  return {
    ...unmendable(`exec python3 -c '${ON_A_TERMINAL}' '${holder}' "$@"`),
    break: () => process.kill(Number(readFileSync(holder, 'utf8')), 'SIGKILL'),
  };
}

/** One that fails from the start, whatever happens, and that nothing comes out of. */
export function unmendable(shell: string): LogChannel {
  return {
    shell,
    format: 'json',
    break: () => undefined,
    mend: null,
    text: () => '',
    close: () => undefined,
  };
}

export const LOG_CHANNELS: Readonly<Record<string, Opened>> = {
  'a device that is full': () => unmendable('exec "$@" 2>/dev/full'),
  'a disk that fills': tmpfs,
  'a pipe nobody reads': stalledPipe,
  'a pipe that was closed': closedPipe,
  'nothing, fd 2 is closed': () => unmendable('exec "$@" 2>&-'),
  'a terminal that was closed': closedTerminal,
  'a journal that was stopped': stoppedJournal,
};
