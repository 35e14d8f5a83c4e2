import { acceptUnix } from './socket.js';

export type FdKind =
  'listener' | 'connection' | 'state' | 'events' | 'config' | 'orders' | 'history' | 'other';

/**
 * Keeps file descriptors where they outlive this process, so that the next one finds them by their names. An open file
 * that is kept twice has one name; it is let go of when all its fds are closed (closeFd).
 */
export interface FdKeeper {
  /** Whether anything is kept at all. */
  readonly active: boolean;
  keep(fd: number, kind?: FdKind): void;
  /** The next connection to a listening socket, kept from its first moment; null when nobody is waiting, or not yet. */
  accept(listener: number): number | null;
  /** The name of a kept fd, else null. */
  nameOf(fd: number): string | null;
  /** An fd of that name that a process before this one left, or null. It is the caller's, and kept. */
  claim(name: string): number | null;
  /** True when all that keep() was called for is safe; else `safe` is called once when it is. */
  whenSafe(safe: () => void): boolean;
}

/** For daemons that nobody keeps anything for. */
export const NO_KEEPER: FdKeeper = {
  active: false,
  keep: () => undefined,
  accept: (listener) => acceptUnix(listener),
  nameOf: () => null,
  claim: () => null,
  whenSafe: () => true,
};
