import { lstatSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { checked, PathTakenError, type Standing } from './errors.js';
import { native } from './native.js';

/** Unix sockets. All are close-on-exec and non-blocking. */

/** The kernel's limit for one message. */
const MAX_FDS = 253;
const NO_FDS = new Int32Array(0);
const received = new Int32Array(MAX_FDS + 1);

/**
 * Listens at `path`, which nobody may have listened on: a socket that was left behind is replaced. Throws PathTakenError
 * where a listener or anything but a socket is there, else SystemError. A path has at most 107 bytes (ENAMETOOLONG).
 */
export function listenUnix(path: string, mode = 0o600): number {
  const result = native.listen(path, mode);
  if (result === -constants.errno.EALREADY) throw new PathTakenError(path, 'foreign');
  if (result === -constants.errno.EADDRINUSE) throw new PathTakenError(path, standingAt(path));
  return checked(result, 'listen on', path);
}

/** What is at `path`; `hidden` where this process may not look, `link` for a symbolic link that leads nowhere. */
export function standingAt(path: string): Standing {
  try {
    const entry = statSync(path, { throwIfNoEntry: false });
    if (entry === undefined) {
      return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? 'link' : 'nothing';
    }
    if (entry.isDirectory()) return 'folder';
    return entry.isSocket() ? 'socket' : 'file';
  } catch {
    return 'hidden';
  }
}

export function connectUnix(path: string): number {
  return checked(native.connect(path), 'connect to', path);
}

/** Null when nobody is waiting. */
export function acceptUnix(fd: number): number | null {
  const result = native.accept(fd);
  return wouldBlock(result) ? null : checked(result, 'accept');
}

/**
 * The same, with `message` and the connection sent to the datagram socket `told` before this process can be ended.
 * Null when nobody is waiting, 'full' when `told` takes nothing now: then the connection stays where it is.
 */
export function acceptAndTell(fd: number, told: number, message: Uint8Array): number | null | 'full' {
  const result = native.acceptAndTell(fd, told, message, 0, message.length);
  if (result === -constants.errno.EBUSY) return 'full';
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

/** The process that made the connection (SO_PEERCRED); 0 where it is in a pid namespace that this one cannot see. */
export function peerPid(fd: number): number {
  return checked(native.peerPid(fd), 'getsockopt');
}

/**
 * Reads at most `length` bytes (1 or more) and appends the fds that came with them to `fdsOut`. Returns the bytes read, 0 at
 * the end of the stream, -1 when there is nothing yet. When the kernel had to drop fds, all are closed: EMFILE
 * where this process may have no more of them open, else EMSGSIZE.
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

/** Sends a datagram of no bytes with an fd. False when it would block. */
export function sendDescriptor(fd: number, passed: number): boolean {
  const sent = native.sendDescriptor(fd, passed);
  return !wouldBlock(sent) && checked(sent, 'sendmsg') === 0;
}

/**
 * Looks at the bytes behind those that were looked at, without taking them; they go into `into` from `at` on. Appends copies
 * of fds that came with them to `fdsOut`. It ends behind the first bytes that fds came with. Returns the number of
 * bytes, 0 at the end of the stream, -1 when there are none yet. Comes after setPeekOffset().
 */
export function peek(fd: number, at: number, into: Uint8Array, fdsOut: number[]): number {
  const got = native.peek(fd, into, at, into.length - at, received);
  const count = received[0] ?? 0;
  for (let n = 1; n <= count; n++) fdsOut.push(received[n] ?? -1);
  return wouldBlock(got) ? -1 : checked(got, 'recvmsg');
}

/** Takes bytes that were looked at. */
export function consume(fd: number, length: number): void {
  checked(native.consume(fd, length), 'recv');
}

/**
 * How many bytes of the socket were looked at and not taken, by whichever process: peek() counts it up, consume() down. Null
 * where nobody has set it (SO_PEEK_OFF, socket(7)).
 */
export function peekOffset(fd: number): number | null {
  const offset = native.peekOffset(fd);
  return offset < 0 ? null : offset;
}

/** The next peek() begins so many bytes behind those that were taken. */
export function setPeekOffset(fd: number, offset: number): void {
  checked(native.setPeekOffset(fd, offset), 'setsockopt');
}

/** Whether the peer sends nothing any more. */
export function hungUp(fd: number): boolean {
  return checked(native.hungUp(fd), 'poll') === 1;
}

/**
 * Sends at most `length` bytes (1 or more) of an open file from its offset on, and moves that by what was sent.
 * Those bytes stay as they are until the peer has read them. -1: it would block.
 */
export function sendFile(fd: number, file: number, length: number): number {
  const sent = native.sendFile(fd, file, length);
  return wouldBlock(sent) ? -1 : checked(sent, 'sendfile');
}

/** Whether the peer has read all that was sent. */
export function allRead(fd: number): boolean {
  return checked(native.unread(fd), 'ioctl') === 0;
}

/** A datagram socket that sends to `path`; a leading @ names an abstract one. */
export function connectDatagram(path: string): number {
  return checked(native.datagramConnect(path), 'connect to', path);
}

/** A datagram socket that receives what is sent to `path`. */
export function bindDatagram(path: string): number {
  return checked(native.datagramBind(path), 'bind', path);
}

const pathBytes = new Uint8Array(108);

/** The path of a listening socket; empty when it has none. */
export function boundPath(fd: number): string {
  const length = checked(native.boundPath(fd, pathBytes, 0, pathBytes.length), 'getsockname');
  return new TextDecoder().decode(pathBytes.subarray(0, length));
}

function wouldBlock(result: number): boolean {
  return result === -constants.errno.EAGAIN;
}
