/**
 * What an operator and a service manager see of a process, and what outlives it. The daemon (src/daemon) makes, in this
 * order: the fd-store (this file; keeper is the process that stands in for systemd), log with journal-log or pretty-line,
 * event-log with event-memory, kept-text for settings and orders; later metrics with its families, and at last notify and
 * watchdog. signals and last-words are for the end of a process. All devices of a VM keep their files here through FdKeeper.
 */
import { fstatSync } from 'node:fs';
import { encodeNotification, type Notification, type PassedFd } from '../../protocol/systemd.js';
import { closeFd, duplicateFd, whenClosed } from '../os/fd.js';
import { readKernelFile } from '../os/kernel-file.js';
import type { FdKeeper, FdKind } from '../os/fd-keeper.js';
import { Poller, WRITABLE } from '../os/poller.js';
import { acceptAndTell, acceptUnix, connectDatagram, send } from '../os/socket.js';

/** Short names: those of all fds have to fit one environment variable. */
const PREFIXES: Readonly<Record<FdKind, string>> = {
  listener: 'l',
  connection: 'c',
  state: 's',
  events: 'e',
  config: 'g',
  orders: 'o',
  history: 'h',
  other: 'f',
};
const OUR_NAME = /^([lcsefgoh])(\d{1,6})$/;

/** A file of this name beside the keeper's socket says that the keeper ends, and not the daemon alone. */
export const KEEPER_STOPS = 'stops';

/** Whether the name is that of a VM's connection. */
export function isConnection(name: string): boolean {
  return name.startsWith(PREFIXES.connection);
}

/** An open file that is kept. */
interface Kept {
  readonly name: string;
  readonly identity: string;
  /** Open fds of ours; at 0 it is about to be let go of. */
  fds: Set<number>;
}

/**
 * The service manager's file descriptor store (sd_notify(3), FDSTORE=1), or what speaks its protocol. It holds an open
 * file once, whatever the names, and lets go of all that have a name: so each has one name here.
 */
export class FdStore implements FdKeeper {
  readonly active = true;
  readonly #socket: number;
  readonly #poller: Poller;
  readonly #most: number;
  readonly #failed: (reason: string) => void;
  readonly #byName = new Map<string, Kept>();
  readonly #byIdentity = new Map<string, Kept>();
  readonly #byFd = new Map<number, Kept>();
  /** Left by a process before this one, and not claimed yet. */
  readonly #left = new Map<string, number>();
  /** Those to be kept, and those to be let go of, which can wait. */
  #unsent: { kept: Kept; fd: number }[] = [];
  #released: Kept[] = [];
  #waiting: (() => void)[] = [];
  /** A connection waits to be accepted until more can be sent. */
  #full = false;
  #last = 0;
  #broken = false;

  /** `most`: how many it takes. `failed` is called when something cannot be kept. Throws SystemError. */
  constructor(path: string, most: number, passed: readonly PassedFd[], failed: (reason: string) => void) {
    this.#socket = connectDatagram(path);
    this.#poller = new Poller(this.#socket, 0, () => this.#flush());
    this.#most = most;
    this.#failed = failed;
    for (const { fd, name } of passed) {
      const number = OUR_NAME.exec(name)?.[2];
      if (number === undefined) continue;
      this.#last = Math.max(this.#last, Number(number));
      this.#left.set(name, closedOnExec(fd));
    }
  }

  keep(fd: number, kind: FdKind = 'other'): void {
    if (this.#byFd.has(fd)) return;
    const identity = identityOf(fd);
    const known = this.#byIdentity.get(identity);
    if (known === undefined && this.#byName.size >= this.#most) {
      this.#failed(`there is room for ${this.#most} file descriptors`);
      return;
    }
    const kept = known ?? { name: `${PREFIXES[kind]}${++this.#last}`, identity, fds: new Set<number>() };
    this.#own(kept, fd);
    if (known !== undefined) return;
    if (this.#unsent.length === 0 && this.#trySend(store(kept), fd)) return;
    this.#unsent.push({ kept, fd: duplicateFd(fd) });
    this.#poller.setEvents(WRITABLE);
  }

  accept(listener: number): number | null {
    if (this.#unsent.length > 0 || this.#broken || this.#byName.size >= this.#most) {
      const fd = acceptUnix(listener);
      if (fd !== null) this.keep(fd, 'connection');
      return fd;
    }
    const name = `${PREFIXES.connection}${this.#last + 1}`;
    const fd = acceptAndTell(listener, this.#socket, encoded({ FDSTORE: 1, FDNAME: name, FDPOLL: 0 }));
    if (fd === 'full') {
      this.#full = true;
      this.#poller.setEvents(WRITABLE);
    }
    if (fd === null || fd === 'full') return null;
    this.#last++;
    this.#own({ name, identity: identityOf(fd), fds: new Set<number>() }, fd);
    return fd;
  }

  nameOf(fd: number): string | null {
    return this.#byFd.get(fd)?.name ?? null;
  }

  claim(name: string): number | null {
    const known = this.#byName.get(name)?.fds.values().next().value;
    const fd = known === undefined ? this.#left.get(name) : duplicateFd(known);
    if (fd === undefined) return null;
    this.#left.delete(name);
    this.#own(this.#byName.get(name) ?? { name, identity: identityOf(fd), fds: new Set() }, fd);
    return fd;
  }

  /** Names of what a process before this one left, of one kind. */
  left(kind: FdKind): string[] {
    return [...this.#left.keys()].filter((name) => name.startsWith(PREFIXES[kind]));
  }

  /** Lets go of what was not claimed. */
  dropLeft(): void {
    for (const [name, fd] of this.#left) {
      const kept = { name, identity: identityOf(fd), fds: new Set<number>() };
      this.#own(kept, fd);
      closeFd(fd);
    }
    this.#left.clear();
  }

  whenSafe(safe: () => void): boolean {
    if (this.#unsent.length === 0 && !this.#full) return true;
    this.#waiting.push(safe);
    return false;
  }

  close(): void {
    this.#poller.close();
    closeFd(this.#socket);
  }

  #own(kept: Kept, fd: number): void {
    kept.fds.add(fd);
    this.#byFd.set(fd, kept);
    this.#byName.set(kept.name, kept);
    this.#byIdentity.set(kept.identity, kept);
    whenClosed(fd, () => {
      kept.fds.delete(fd);
      this.#byFd.delete(fd);
      if (kept.fds.size > 0) return;
      // Only when what is going on has been written down: until then the next process would still look for it.
      if (this.#released.push(kept) === 1) setImmediate(() => this.#flush());
    });
  }

  /** False when it has to wait. */
  #trySend(assignments: Notification, fd: number | null): boolean {
    if (this.#broken) return true;
    const bytes = encoded(assignments);
    try {
      return send(this.#socket, bytes, 0, bytes.length, fd === null ? [] : [fd]) >= 0;
    } catch (error) {
      this.#broken = true;
      this.#failed(error instanceof Error ? error.message : String(error));
      return true;
    }
  }

  #flush(): void {
    this.#full = false;
    for (let first = this.#unsent[0]; first !== undefined; first = this.#unsent[0]) {
      if (!this.#trySend(store(first.kept), first.fd)) return;
      closeFd(first.fd);
      this.#unsent.shift();
    }
    for (const safe of this.#waiting.splice(0)) safe();
    for (let kept = this.#released[0]; kept !== undefined; kept = this.#released[0]) {
      // It may be in use again.
      const gone = kept.fds.size === 0 && this.#byName.get(kept.name) === kept;
      if (gone && !this.#trySend({ FDSTOREREMOVE: 1, FDNAME: kept.name }, null)) break;
      if (gone) this.#byName.delete(kept.name);
      if (gone) this.#byIdentity.delete(kept.identity);
      this.#released.shift();
    }
    this.#poller.setEvents(this.#unsent.length + this.#released.length > 0 ? WRITABLE : 0);
  }
}

function encoded(assignments: Notification): Uint8Array {
  return new TextEncoder().encode(encodeNotification(assignments));
}

function store({ name }: Kept): Notification {
  return { FDSTORE: 1, FDNAME: name, FDPOLL: 0 };
}

/** What two fds of one open file, or of one file, have in common. */
function identityOf(fd: number): string {
  const eventfd = /^eventfd-id:\s*(\d+)$/m.exec(readKernelFile(`/proc/self/fdinfo/${fd}`))?.[1];
  if (eventfd !== undefined) return `eventfd ${eventfd}`;
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

function closedOnExec(fd: number): number {
  const copy = duplicateFd(fd);
  closeFd(fd);
  return copy;
}
