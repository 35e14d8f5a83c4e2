import { readFileSync, writeSync } from 'node:fs';
import { closeFd } from '../os/fd.js';
import type { FdKind } from '../os/fd-keeper.js';
import { createMemfd } from '../os/memfd.js';
import type { FdStore } from './fd-store.js';

/** A text for the daemon after this one, in a file in memory that the store holds. */
export class KeptText {
  /** The texts of the daemons before this one, the newest first; a daemon that was killed may have left two. */
  readonly left: readonly string[];
  readonly #store: FdStore | null;
  readonly #kind: FdKind;
  #fds: readonly number[];
  #text: string | null;

  /** `store`: null where nobody keeps anything. */
  constructor(store: FdStore | null, kind: FdKind) {
    this.#store = store;
    this.#kind = kind;
    const number = (name: string): number => Number(name.slice(1));
    const names = [...(store?.left(kind) ?? [])].sort((a, b) => number(b) - number(a));
    this.#fds = names.flatMap((name) => store?.claim(name) ?? []);
    // By the path: a number shares its offset with the reader before this one.
    this.left = this.#fds.map((fd) => readFileSync(`/proc/self/fd/${fd}`, 'utf8'));
    this.#text = this.left.length === 1 ? (this.left[0] ?? null) : null;
  }

  /** Takes the place of the text that was kept before. Throws SystemError. */
  write(text: string): void {
    if (this.#store === null || text === this.#text) return;
    const bytes = new TextEncoder().encode(text);
    const fd = createMemfd(`balloond-${this.#kind}`, bytes.length);
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, at);
    this.#store.keep(fd, this.#kind);
    for (const old of this.#fds) closeFd(old);
    this.#fds = [fd];
    this.#text = text;
  }
}
