/**
 * Who may be served at the same time. Streams stay for as long as their clients like, so they never take the last
 * places: an operator gets an answer however many follow. A client for whom there is no place is told so.
 */
import type { Socket } from 'node:net';

/** Clients beyond this are turned away, so that they cannot use up the fds that VMs need. */
export const CONNECTIONS_MAX = 64;
/** Of these, as many as may be streams. */
export const STREAMS_MAX = 48;
/** Connections that are open for as long as it takes to turn their clients away. */
export const TURNED_AWAY_MAX = 16;
const SAID_EVERY_MS = 60_000;

export class Places {
  readonly #served = new Set<Socket>();
  readonly #turnedAway = new Set<Socket>();
  #streams = 0;
  readonly #saidAt = new Map<string, number>();

  /** A connection came. False: there is no place for it. */
  come(socket: Socket): boolean {
    const among = this.#served.size < CONNECTIONS_MAX ? this.#served : this.#turnedAway;
    among.add(socket);
    socket.once('close', () => among.delete(socket));
    return among === this.#served;
  }

  hasPlace(socket: Socket): boolean {
    return !this.#turnedAway.has(socket);
  }

  /** Null when all places for streams are taken; else the one who calls it back has a place less. */
  stream(): (() => void) | null {
    if (this.#streams >= STREAMS_MAX) return null;
    this.#streams++;
    return () => this.#streams--;
  }

  /** Whether it is time to tell the operator that there is no place of this kind: once a minute. */
  mayBeSaid(kind: string): boolean {
    const now = performance.now();
    const last = this.#saidAt.get(kind);
    if (last !== undefined && now - last < SAID_EVERY_MS) return false;
    this.#saidAt.set(kind, now);
    return true;
  }
}
