import { fstatSync, readFileSync } from 'node:fs';
import { encodeNotification, type PassedFd } from '../../protocol/systemd.js';
import { closeFd, duplicateFd, whenClosed } from '../os/fd.js';
import type { FdKeeper, FdKind } from '../os/fd-keeper.js';
import { Poller, WRITABLE } from '../os/poller.js';
import { connectDatagram, send } from '../os/socket.js';

/** Short names: those of all fds have to fit one environment variable. */
const PREFIXES: Readonly<Record<FdKind, string>> = { listener: 'l', state: 's', other: 'f' };
const OUR_NAME = /^([lsf])(\d{1,6})$/;

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
  #unsent: { bytes: Uint8Array; fd: number | null }[] = [];
  #waiting: (() => void)[] = [];
  #released: Kept[] = [];
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
    let kept = this.#byIdentity.get(identity);
    if (kept === undefined) {
      if (this.#byName.size >= this.#most) {
        this.#fail(`there is room for ${this.#most} file descriptors`);
        return;
      }
      kept = { name: `${PREFIXES[kind]}${++this.#last}`, identity, fds: new Set() };
      this.#send({ FDSTORE: 1, FDNAME: kept.name, FDPOLL: 0 }, fd);
    }
    this.#own(kept, fd);
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
      closeFd(fd);
      this.#send({ FDSTOREREMOVE: 1, FDNAME: name }, null);
    }
    this.#left.clear();
  }

  whenSafe(safe: () => void): boolean {
    if (this.#unsent.length === 0) return true;
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
      if (this.#released.push(kept) === 1) setImmediate(() => this.#release());
    });
  }

  #release(): void {
    for (const kept of this.#released.splice(0)) {
      if (kept.fds.size > 0 || this.#byName.get(kept.name) !== kept) continue;
      this.#byName.delete(kept.name);
      this.#byIdentity.delete(kept.identity);
      this.#send({ FDSTOREREMOVE: 1, FDNAME: kept.name }, null);
    }
  }

  #send(assignments: Readonly<Record<string, string | number>>, fd: number | null): void {
    if (this.#broken) return;
    const bytes = new TextEncoder().encode(encodeNotification(assignments));
    if (this.#unsent.length === 0 && this.#trySend(bytes, fd)) return;
    this.#unsent.push({ bytes, fd: fd === null ? null : duplicateFd(fd) });
    this.#poller.setEvents(WRITABLE);
  }

  /** False when it has to wait. */
  #trySend(bytes: Uint8Array, fd: number | null): boolean {
    try {
      return send(this.#socket, bytes, 0, bytes.length, fd === null ? [] : [fd]) >= 0;
    } catch (error) {
      this.#broken = true;
      this.#fail(error instanceof Error ? error.message : String(error));
      return true;
    }
  }

  #flush(): void {
    for (let first = this.#unsent[0]; first !== undefined; first = this.#unsent[0]) {
      if (!this.#broken && !this.#trySend(first.bytes, first.fd)) return;
      if (first.fd !== null) closeFd(first.fd);
      this.#unsent.shift();
    }
    this.#poller.setEvents(0);
    for (const safe of this.#waiting.splice(0)) safe();
  }

  #fail(reason: string): void {
    this.#failed(reason);
  }
}

/** What two fds of one open file, or of one file, have in common. */
function identityOf(fd: number): string {
  const eventfd = /^eventfd-id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
  if (eventfd !== undefined) return `eventfd ${eventfd}`;
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

function closedOnExec(fd: number): number {
  const copy = duplicateFd(fd);
  closeFd(fd);
  return copy;
}
