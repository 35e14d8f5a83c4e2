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

/** Passes the next fd on; it is closed again when its taker refuses it. */
export function adopt(fds: FdBag, take: (fd: number) => void): void {
  const fd = fds.take();
  try {
    take(fd);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** The same where the message says whether it brings an fd; -1 stands for none. */
export function adoptOptional(
  { noFd }: { readonly noFd: boolean },
  fds: FdBag,
  take: (fd: number) => void,
): void {
  if (noFd !== (fds.count === 0)) throw new FrontendError('the vring fd flag and the fds that came disagree');
  if (noFd) take(-1);
  else adopt(fds, take);
}
