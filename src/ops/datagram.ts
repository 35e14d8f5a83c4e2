import { createRequire } from 'node:module';

interface UnixDatagram {
  send(
    message: Buffer,
    offset: number,
    length: number,
    path: string,
    done: (error?: SendError) => void,
  ): void;
  close(): void;
  on(event: 'error', listener: (error: Error) => void): void;
}
/** `code` is -errno, or 1 for "not now". */
type SendError = Error & { code?: number };

/** sun_path, less its final NUL; unix-dgram silently cuts what is longer. */
const MAX_PATH_BYTES = 107;

/**
 * Sends datagrams to a Unix socket with a path. unix-dgram ends the process for arguments it does not expect, so they
 * are checked here; abstract names (a leading @) are beyond it. It never waits.
 */
export class DatagramSender {
  readonly #path: string;
  readonly #socket: UnixDatagram;
  #open = true;

  /** Throws when the addon is missing or does not load, or the path is none it can send to. */
  constructor(path: string) {
    if (!path.startsWith('/') || Buffer.byteLength(path) > MAX_PATH_BYTES) {
      throw new RangeError(`no socket can be at ${path}: its path begins with / and has at most 107 bytes`);
    }
    this.#path = path;
    // Loaded on use: most daemons run without systemd, or on a Node this addon was not built for.
    const { createSocket } = createRequire(import.meta.url)('unix-dgram') as {
      createSocket: (type: 'unix_dgram') => UnixDatagram;
    };
    this.#socket = createSocket('unix_dgram');
    this.#socket.on('error', () => undefined);
  }

  /** The errno with which it could not be sent; 0: it was. */
  send(message: Buffer): number {
    let errno = 0;
    this.#socket.send(message, 0, message.length, this.#path, (error) => {
      if (error !== undefined) errno = Math.abs(error.code ?? 1);
    });
    return errno;
  }

  /** An open one keeps the process going. */
  close(): void {
    if (this.#open) this.#socket.close();
    this.#open = false;
  }
}

/** Sends one datagram. False: nothing was sent. Throws when the addon does not load. */
export function sendDatagram(path: string, text: string): boolean {
  let sender: DatagramSender;
  try {
    sender = new DatagramSender(path);
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
  try {
    return sender.send(Buffer.from(text)) === 0;
  } finally {
    sender.close();
  }
}
