import { checked } from './errors.js';
import { native } from './native.js';
import { constants } from 'node:os';

/** Unix stream sockets. All are close-on-exec and non-blocking. */

/** The kernel's limit for one message. */
const MAX_FDS = 253;
const NO_FDS = new Int32Array(0);
const received = new Int32Array(MAX_FDS + 1);
const credentials = new Int32Array(3);

/**
 * Listens at `path`, which nobody may have listened on: a socket that was left behind is replaced, a live one is
 * EADDRINUSE. A path has at most 107 bytes (ENAMETOOLONG).
 */
export function listenUnix(path: string, mode = 0o600): number {
  return checked(native.listen(path, mode), 'listen on', path);
}

export function connectUnix(path: string): number {
  return checked(native.connect(path), 'connect to', path);
}

/** Null when nobody is waiting. */
export function acceptUnix(fd: number): number | null {
  const result = native.accept(fd);
  return wouldBlock(result) ? null : checked(result, 'accept');
}

export function socketPair(): [number, number] {
  const fds = new Int32Array(2);
  checked(native.socketPair(fds), 'socketpair');
  const [a = -1, b = -1] = fds;
  return [a, b];
}

export function isListening(fd: number): boolean {
  return checked(native.isListening(fd), 'getsockopt', `fd ${fd}`) === 1;
}

/** Who made the connection (SO_PEERCRED); the pid is 0 when it is in a pid namespace we cannot see. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  checked(native.peer(fd, credentials), 'getsockopt');
  const [pid = 0, uid = 0, gid = 0] = credentials;
  return { pid, uid: uid >>> 0, gid: gid >>> 0 };
}

/**
 * Reads at most `length` bytes (1 or more) and appends the fds that came with them to `fdsOut`. Returns the bytes read, 0 at
 * the end of the stream, -1 when there is nothing yet. When the kernel had to drop fds, all are closed: EMSGSIZE.
 */
export function receive(
  fd: number,
  into: Uint8Array,
  offset: number,
  length: number,
  fdsOut: number[],
): number {
  const got = native.receive(fd, into, offset, length, received);
  const count = received[0] ?? 0;
  for (let n = 1; n <= count; n++) fdsOut.push(received[n] ?? -1);
  return wouldBlock(got) ? -1 : checked(got, 'recvmsg');
}

/** Sends `length` bytes (1 or more). Returns those sent, with the fds if any were, or -1 when it would block. */
export function send(
  fd: number,
  from: Uint8Array,
  offset: number,
  length: number,
  fds: readonly number[],
): number {
  const sent = native.send(fd, from, offset, length, fds.length === 0 ? NO_FDS : Int32Array.from(fds));
  return wouldBlock(sent) ? -1 : checked(sent, 'sendmsg');
}

function wouldBlock(result: number): boolean {
  return result === -constants.errno.EAGAIN;
}
