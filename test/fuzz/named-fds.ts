import type { FdKeeper } from '../../src/os/fd-keeper.js';
import { acceptUnix } from '../../src/os/socket.js';
import { closeFd, duplicateFd } from '../../src/os/fd.js';

/** A keeper of file descriptors in this process: what was kept can be claimed, as often as anybody wants. */
export class NamedFds implements FdKeeper {
  readonly active = true;
  /** Whatever is kept is only safe some time later. */
  slow = false;
  readonly #names = new Map<number, string>();
  readonly #copies = new Map<string, number>();
  readonly #claimed: number[] = [];
  #last = 0;

  /** Kept under a name that was given elsewhere; takes `fd` over. */
  put(name: string, fd: number): void {
    this.#copies.set(name, fd);
  }

  keep(fd: number): void {
    if (this.#names.has(fd)) return;
    const name = `f${++this.#last}`;
    this.#names.set(fd, name);
    this.#copies.set(name, duplicateFd(fd));
  }

  accept(listener: number): number | null {
    return acceptUnix(listener);
  }

  nameOf(fd: number): string | null {
    return this.#names.get(fd) ?? null;
  }

  claim(name: string): number | null {
    const copy = this.#copies.get(name);
    if (copy === undefined) return null;
    const fd = duplicateFd(copy);
    this.#names.set(fd, name);
    this.#claimed.push(fd);
    return fd;
  }

  whenSafe(safe: () => void): boolean {
    if (!this.slow) return true;
    this.slow = false;
    setImmediate(safe);
    return false;
  }

  get names(): string[] {
    return [...this.#copies.keys()];
  }

  /** A keeper of the same, for the next process; `change` has other open files for some names. */
  next(change: ReadonlyMap<string, number>): NamedFds {
    const next = new NamedFds();
    next.#last = this.#last;
    for (const [name, fd] of this.#copies) next.#copies.set(name, duplicateFd(change.get(name) ?? fd));
    return next;
  }

  /** Closes what was claimed, which nobody took over. */
  closeClaimed(): void {
    this.#claimed.splice(0).forEach(closeFd);
  }

  close(): void {
    for (const fd of this.#copies.values()) closeFd(fd);
    this.#copies.clear();
  }
}
