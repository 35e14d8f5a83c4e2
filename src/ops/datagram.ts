import { constants } from 'node:os';
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import { connectDatagram, send } from '../os/socket.js';

const { EAGAIN, ECONNREFUSED } = constants.errno;

/** Sends datagrams to the Unix socket at a path, or to an abstract one (a leading @). It never waits. */
export class DatagramSender {
  readonly #path: string;
  #fd: number | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  /** The errno with which the message could not be sent; 0: it was sent. */
  send(message: Buffer): number {
    const wasOpen = this.#fd !== null;
    const errno = this.#try(message);
    // The receiver that this socket was connected to is gone; another may be there.
    return errno === ECONNREFUSED && wasOpen ? this.#try(message) : errno;
  }

  close(): void {
    if (this.#fd !== null) closeFd(this.#fd);
    this.#fd = null;
  }

  #try(message: Buffer): number {
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

/** Sends one datagram. False: nothing was sent. */
export function sendDatagram(path: string, text: string): boolean {
  const sender = new DatagramSender(path);
  try {
    return sender.send(Buffer.from(text)) === 0;
  } finally {
    sender.close();
  }
}
