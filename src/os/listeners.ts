/** Unix sockets on which processes listen, by the lists of the kernel: nobody has to connect for this. */
import { readFileSync } from 'node:fs';

/** The unit of balloond has a network namespace of its own, and the list of process 1 is that of the host. */
const LISTS = ['/proc/net/unix', '/proc/1/net/unix'];
/** __SO_ACCEPTCON, of which the kernel makes the flags of a listening socket. */
const LISTENS = '00010000';
/** Num: RefCount Protocol Flags Type St Inode Path */
const LINE = /^\S+: \S+ \S+ (\S+) \S+ \S+ +(\S+) (.+)$/;

interface ListeningSocket {
  /** The number of the socket itself, which `/proc/PID/fd` names. */
  readonly inode: string;
  readonly path: string;
}

/** Of this network namespace, that of process 1, and that of each of `pids`. Throws where a list may not be read. */
export function listeningSockets(...pids: readonly number[]): ListeningSocket[] {
  const lists = [...LISTS, ...pids.map((pid) => `/proc/${pid}/net/unix`)];
  return lists
    .flatMap((list) => readFileSync(list, 'utf8').split('\n'))
    .flatMap((line) => {
      const [, flags, inode = '', path = ''] = LINE.exec(line) ?? [];
      return flags === LISTENS ? [{ inode, path }] : [];
    });
}
