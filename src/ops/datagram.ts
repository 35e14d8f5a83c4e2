import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import { connectDatagram, send } from '../os/socket.js';

const { EAGAIN, ECONNREFUSED } = constants.errno;
/** sun_path, less its final NUL; unix-dgram silently cuts what is longer. */
const MAX_PATH_BYTES = 107;

interface AddonSocket {
  send(
    message: Buffer,
    offset: number,
    length: number,
    path: string,
    done: (error?: Error & { code?: number }) => void,
  ): void;
  close(): void;
  on(event: 'error', listener: (error: Error) => void): void;
}
/** The package unix-dgram. */
interface DatagramAddon {
  createSocket(type: 'unix_dgram'): AddonSocket;
}
let addon: DatagramAddon | null | undefined;

/** unix-dgram, or null where its addon was not built for the Node that runs this. */
export function loadDatagramAddon(): DatagramAddon | null {
  if (addon !== undefined) return addon;
  try {
    // Loaded on use: most daemons run without systemd.
    addon = createRequire(import.meta.url)('unix-dgram') as DatagramAddon;
  } catch {
    addon = null;
  }
  return addon;
}

/**
 * Sends datagrams to the Unix socket at a path, or to an abstract one (a leading @). It never waits. unix-dgram sends
 * where it loads; abstract names are beyond it, so the native helper sends to those, and everything without unix-dgram.
 */
export class DatagramSender {
  readonly #path: string;
  #socket: AddonSocket | null = null;
  #fd: number | null = null;

  constructor(path: string, by: DatagramAddon | null = loadDatagramAddon()) {
    this.#path = path;
    // unix-dgram ends the process for arguments that it does not expect.
    if (by === null || !path.startsWith('/') || Buffer.byteLength(path) > MAX_PATH_BYTES) return;
    this.#socket = by.createSocket('unix_dgram');
    this.#socket.on('error', () => undefined);
  }

  /** The errno with which the message could not be sent; 0: it was sent. */
  send(message: Buffer): number {
    if (this.#socket !== null) return sendByAddon(this.#socket, message, this.#path);
    const wasOpen = this.#fd !== null;
    const errno = this.#sendByHelper(message);
    // The receiver that this socket was connected to is gone; another may be there.
    return errno === ECONNREFUSED && wasOpen ? this.#sendByHelper(message) : errno;
  }

  /** An open one keeps the process going. */
  close(): void {
    this.#socket?.close();
    this.#socket = null;
    if (this.#fd !== null) closeFd(this.#fd);
    this.#fd = null;
  }

  #sendByHelper(message: Buffer): number {
    try {
      this.#fd ??= connectDatagram(this.#path);
      return send(this.#fd, message, 0, message.length, []) < 0 ? EAGAIN : 0;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      const errno = Object.entries(constants.errno).find(([name]) => name === error.code)?.[1] ?? EAGAIN;
      if (errno === ECONNREFUSED) this.close();
      return errno;
    }
  }
}

/** The addon's code is -errno, or 1 for "not now". */
function sendByAddon(socket: AddonSocket, message: Buffer, path: string): number {
  let errno = 0;
  socket.send(message, 0, message.length, path, (error) => {
    if (error === undefined) return;
    errno = error.code === 1 ? EAGAIN : Math.abs(error.code ?? EAGAIN);
  });
  return errno;
}

/** Sends one datagram. False: nothing was sent. */
export function sendDatagram(path: string, text: string, by?: DatagramAddon | null): boolean {
  const sender = new DatagramSender(path, by);
  try {
    return sender.send(Buffer.from(text)) === 0;
  } finally {
    sender.close();
  }
}
