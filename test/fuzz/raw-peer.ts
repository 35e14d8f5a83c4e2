import { closeFd } from '../../src/os/fd.js';
import { receive, send } from '../../src/os/socket.js';

/** One end of a socket, without any notion of a message, and without an event loop: it reads when it is told to. */
export class RawPeer {
  readonly #fd: number;
  readonly #scratch = new Uint8Array(65536);
  #open = true;

  /** Owns `fd`. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** What the kernel takes at once, in one call, with the fds; 0 when it takes nothing now. */
  send(bytes: Uint8Array, fds: readonly number[]): number {
    if (!this.#open || bytes.length === 0) return 0;
    try {
      return Math.max(0, send(this.#fd, bytes, 0, bytes.length, fds));
    } catch {
      // The other side is gone; what it said before is still to be read.
      this.read();
      return 0;
    }
  }

  /** What there is, or null at the end of the stream. Fds that come along are closed. */
  read(): Uint8Array | null {
    if (!this.#open) return null;
    const fds: number[] = [];
    try {
      const count = receive(this.#fd, this.#scratch, 0, this.#scratch.length, fds);
      if (count !== 0) return this.#scratch.slice(0, Math.max(0, count));
    } catch {
      // Reset: it is at its end.
    } finally {
      fds.forEach(closeFd);
    }
    this.close();
    return null;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFd(this.#fd);
  }
}
