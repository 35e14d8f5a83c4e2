import { closeFd } from '../os/fd.js';
import { FrontendError } from '../memory/errors.js';

/** The file descriptors of one message. Whoever takes one owns it; the rest is closed after the message. */
export interface FdBag {
  readonly count: number;
  /** Hands out the next one. */
  take(): number;
}

export class OwnedFds implements FdBag {
  readonly #fds: number[];

  constructor(fds: number[]) {
    this.#fds = fds;
  }

  get count(): number {
    return this.#fds.length;
  }

  take(): number {
    const fd = this.#fds.shift();
    if (fd === undefined) throw new FrontendError('an fd is missing');
    return fd;
  }

  closeRest(): void {
    for (const fd of this.#fds.splice(0)) closeFd(fd);
  }
}
