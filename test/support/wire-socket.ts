// One end of a vhost-user socket. It reads as QEMU does: a header, then exactly the payload the header announces,
// so that file descriptors always belong to the message during which they arrived.
import { closeFd } from '../../src/os/fd.js';
import { Poller, READABLE, WRITABLE } from '../../src/os/poller.js';
import { receive, send } from '../../src/os/socket.js';
import { Signal } from './deadline.js';
import { HEADER_BYTES, decodeHeader, encodeMessage, type WireMessage } from './wire.js';

interface Outgoing {
  bytes: Uint8Array;
  sent: number;
  fds: readonly number[];
  done: () => void;
}

export class WireSocket {
  /** Resolves when the socket is at its end: the peer closed it, it failed, or `close` was called. */
  readonly closed: Promise<void>;
  /** Why the socket ended when that was not an orderly end of stream. */
  error: Error | null = null;

  readonly #fd: number;
  readonly #poller: Poller;
  readonly #ended = new Signal();
  readonly #outgoing: Outgoing[] = [];
  #buffer = new Uint8Array(HEADER_BYTES);
  #filled = 0;
  #fds: number[] = [];
  #open = true;

  /** Owns `fd`, a connected non-blocking socket. `onMessage` owns the fds of its messages. */
  constructor(
    fd: number,
    private readonly onMessage: (message: WireMessage) => void,
  ) {
    this.#fd = fd;
    this.closed = this.#ended.next();
    this.#poller = new Poller(fd, READABLE, (events, error) => {
      if (error !== null) return this.#end(error);
      if ((events & WRITABLE) !== 0) this.#flush();
      if ((events & READABLE) !== 0) this.pump();
    });
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Reads whatever is there now. */
  pump(): void {
    while (this.#open && this.#receive());
  }

  /** Sends bytes, and `fds` with the first of them; resolves when the kernel, or an ended socket, has taken all. */
  send(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
    return new Promise((resolve) => {
      this.#outgoing.push({ bytes, sent: 0, fds, done: resolve });
      this.#flush();
    });
  }

  sendMessage(
    request: number,
    flags: number,
    payload: Uint8Array,
    fds: readonly number[] = [],
  ): Promise<void> {
    return this.send(encodeMessage(request, flags, payload), fds);
  }

  /** Reads nothing any more: another process plays on. The fd is returned, and is still this one's to close. */
  handOver(): number {
    this.#poller.setEvents(0);
    return this.#fd;
  }

  close(): void {
    this.#end(null);
  }

  /** False when there is nothing more to read now. */
  #receive(): boolean {
    let count: number;
    try {
      count = receive(this.#fd, this.#buffer, this.#filled, this.#buffer.length - this.#filled, this.#fds);
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(String(error)));
      return false;
    }
    if (count < 0) return false;
    if (count === 0) {
      this.#end(
        this.#filled === 0 ? null : new Error(`the peer left after ${this.#filled} bytes of a message`),
      );
      return false;
    }
    this.#filled += count;
    this.#takeMessage();
    return true;
  }

  #takeMessage(): void {
    if (this.#filled < HEADER_BYTES) return;
    const { request, flags, sizeBytes } = decodeHeader(this.#buffer);
    const totalBytes = HEADER_BYTES + sizeBytes;
    if (this.#buffer.length < totalBytes) {
      const larger = new Uint8Array(totalBytes);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    if (this.#filled < totalBytes) return;
    const message = { request, flags, payload: this.#buffer.slice(HEADER_BYTES, totalBytes), fds: this.#fds };
    this.#buffer = new Uint8Array(HEADER_BYTES);
    this.#filled = 0;
    this.#fds = [];
    this.onMessage(message);
  }

  #flush(): void {
    for (let next = this.#outgoing[0]; next !== undefined && this.#open; next = this.#outgoing[0]) {
      let count: number;
      try {
        count = send(
          this.#fd,
          next.bytes,
          next.sent,
          next.bytes.length - next.sent,
          next.sent === 0 ? next.fds : [],
        );
      } catch (error) {
        // What the peer said before it left is still to be read.
        this.pump();
        this.#end(error instanceof Error ? error : new Error(String(error)));
        return;
      }
      if (count < 0) {
        this.#poller.setEvents(READABLE | WRITABLE);
        return;
      }
      next.sent += count;
      if (next.sent === next.bytes.length) {
        this.#outgoing.shift();
        next.done();
      }
    }
    if (this.#open) this.#poller.setEvents(READABLE);
    else this.#settleOutgoing();
  }

  #settleOutgoing(): void {
    for (const { done } of this.#outgoing.splice(0)) done();
  }

  #end(error: Error | null): void {
    if (!this.#open) return;
    this.#open = false;
    this.error = error;
    this.#poller.close();
    for (const fd of this.#fds.splice(0)) closeFd(fd);
    closeFd(this.#fd);
    this.#settleOutgoing();
    this.#ended.raise();
  }
}
