import { unlinkSync } from 'node:fs';
import { closeFd } from '../os/fd.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { Poller, READABLE } from '../os/poller.js';
import { listenUnix } from '../os/socket.js';

/** Owner and group may connect: the VMM runs as one of them. */
const SOCKET_MODE = 0o660;
/** How long no connection is taken after one: each costs about a millisecond, whoever makes it. */
const PAUSE_MS = 5;
const RETRY_MS = 1000;

/** Hands out each connection made to a listening socket. It owns the socket, and its path if it made it. */
export class Listener {
  readonly fd: number;
  readonly #path: string | null;
  readonly #keeper: FdKeeper;
  readonly #accepted: (fd: number) => void;
  readonly #failed: (error: Error) => void;
  #poller: Poller | null = null;
  #retry: NodeJS.Timeout | null = null;
  /** The error that was handed on last, as long as no connection could be taken since. */
  #told = '';

  /**
   * `accepted` owns the fd it is given. A path that `fd` is listening on already is not bound once more. Throws
   * SystemError when it cannot be listened on. `failed` is told once of an error that stays, however often it is tried.
   */
  constructor(
    where: { path?: string | undefined; fd?: number | undefined },
    keeper: FdKeeper,
    accepted: (fd: number) => void,
    failed: (error: Error) => void,
  ) {
    this.#path = where.path ?? null;
    this.fd = where.fd ?? listenUnix(where.path ?? '', SOCKET_MODE);
    this.#keeper = keeper;
    this.#accepted = accepted;
    this.#failed = failed;
    this.#watch();
  }

  close(): void {
    this.#poller?.close();
    if (this.#retry !== null) clearTimeout(this.#retry);
    closeFd(this.fd);
    if (this.#path === null) return;
    try {
      unlinkSync(this.#path);
    } catch {
      // Somebody removed it already, which is what was wanted.
    }
  }

  #watch(): void {
    this.#retry = null;
    this.#poller = new Poller(this.fd, READABLE, () => this.#accept());
  }

  #accept(): void {
    try {
      // Until it is safe to have one more, it is so in the socket.
      if (!this.#keeper.whenSafe(() => this.#poller?.setEvents(READABLE))) {
        this.#poller?.setEvents(0);
        return;
      }
      const fd = this.#keeper.accept(this.fd);
      if (fd === null) return;
      this.#told = '';
      this.#take(fd);
      this.#poller?.setEvents(0);
      this.#retry = setTimeout(() => {
        this.#retry = null;
        this.#poller?.setEvents(READABLE);
      }, PAUSE_MS);
    } catch (error) {
      // Out of file descriptors: the socket stays readable, so looking again at once would never end.
      const failure = error instanceof Error ? error : new Error(String(error));
      if (failure.message !== this.#told) this.#failed(failure);
      this.#told = failure.message;
      this.#poller?.close();
      this.#retry = setTimeout(() => this.#watch(), RETRY_MS);
    }
  }

  #take(fd: number): void {
    try {
      this.#accepted(fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }
}
