import type { Emit } from '../ops/event-log.js';
import type { FdStore } from '../ops/fd-store.js';
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import { NO_KEEPER } from '../os/fd-keeper.js';
import { boundPath, isListening } from '../os/socket.js';
import { errorWords } from '../vm/troubles.js';
import { Listener } from './listener.js';
import type { SocketSettings } from './settings.js';

type Adopt = (fd: number, socket: SocketSettings | null) => void;

/** The sockets that VMMs connect to: those of flags or of the configuration, and the one that --fd passed. */
export class VmmSockets {
  readonly #store: FdStore | null;
  readonly #adopt: Adopt;
  readonly #emit: Emit;
  readonly #listeners = new Map<string, Listener>();
  #passed: Listener | null = null;
  /** Of the socket that --fd passed: its path is listened on already. */
  #passedPath: string | null = null;
  #wanted: readonly SocketSettings[];

  /** `adopt` owns the fd of each connection. */
  constructor(wanted: readonly SocketSettings[], store: FdStore | null, adopt: Adopt, emit: Emit) {
    this.#wanted = wanted;
    this.#store = store;
    this.#adopt = adopt;
    this.#emit = emit;
  }

  /** Serves a connection, or listens on a socket, that another process made. Throws SystemError. */
  serveFd(fd: number): void {
    if (!isListening(fd)) {
      this.#adopt(fd, null);
      return;
    }
    this.#passedPath = boundPath(fd);
    this.#passed = this.#listener({ fd }, null);
    const path = this.#passedPath;
    this.#emit('listening', `waiting for VMMs at ${path}, which is open as file descriptor ${fd}`, {
      fd,
      path,
    });
  }

  /**
   * Listens at the start, on sockets of the daemon before this one where it left them. `failed` is given a socket that
   * cannot be had, and the way to try again; without it, SystemError is thrown.
   */
  listen(failed?: (error: SystemError, again: () => void) => void): void {
    const bound = this.#bound();
    for (const socket of this.#own()) {
      try {
        this.#listen(socket, bound.get(socket.path));
      } catch (error) {
        if (failed === undefined || !(error instanceof SystemError)) throw error;
        failed(error, () => this.#listenIfWanted(socket.path));
      }
    }
  }

  /** Those that were listened on before go on. Throws SystemError when one cannot be had; then all is as before. */
  change(wanted: readonly SocketSettings[]): void {
    const added = this.#own(wanted).filter(({ path }) => !this.#listeners.has(path));
    try {
      for (const socket of added) this.#listen(socket);
    } catch (error) {
      for (const { path } of added) this.#unlisten(path);
      throw error;
    }
    this.#wanted = wanted;
    for (const path of this.#listeners.keys()) if (this.settings(path) === null) this.#unlisten(path);
  }

  /** How VMs of the socket with this path are served: also one that --fd passed may have a [[socket]]. */
  settings(path: string | null): SocketSettings | null {
    return this.#wanted.find((socket) => socket.path === path) ?? null;
  }

  /** The paths of the sockets that are listened on. */
  get paths(): string[] {
    const passed = this.#passedPath === null ? [] : [this.#passedPath];
    return [...this.#listeners.keys(), ...passed];
  }

  close(): void {
    for (const listener of this.#listeners.values()) listener.close();
    this.#passed?.close();
  }

  #own(wanted = this.#wanted): SocketSettings[] {
    return wanted.filter(({ path }) => path !== this.#passedPath);
  }

  /** Sockets that a daemon before this one listened on. One that nobody wants any more is closed. */
  #bound(): Map<string, number> {
    const bound = new Map<string, number>();
    for (const name of this.#store?.left('listener') ?? []) {
      const fd = this.#store?.claim(name) ?? null;
      if (fd === null) continue;
      const path = boundPath(fd);
      if (this.#own().some((socket) => socket.path === path)) bound.set(path, fd);
      else closeFd(fd);
    }
    return bound;
  }

  #listenIfWanted(path: string): void {
    const socket = this.settings(path);
    if (socket !== null && !this.#listeners.has(path)) this.#listen(socket);
  }

  #listen(socket: SocketSettings, bound?: number): void {
    const { path } = socket;
    const listener = this.#listener({ path, fd: bound }, socket);
    this.#listeners.set(path, listener);
    this.#store?.keep(listener.fd, 'listener');
    this.#emit('listening', `waiting for VMMs at ${path}`, { path });
  }

  #listener(where: { path?: string; fd?: number | undefined }, socket: SocketSettings | null): Listener {
    const path = where.path ?? this.#passedPath;
    return new Listener(
      where,
      this.#store ?? NO_KEEPER,
      (fd) => this.#adopt(fd, this.settings(path) ?? socket),
      (error) => this.#emit('vm-dropped', `a VMM could not be served: ${errorWords(error)}`),
    );
  }

  #unlisten(path: string): void {
    this.#listeners.get(path)?.close();
    this.#listeners.delete(path);
  }
}
