/** The configuration in force, in a file in memory, for the daemon after this one: its files may have mistakes by then. */
import { readFileSync, writeSync } from 'node:fs';
import { closeFd } from '../../os/fd.js';
import { createMemfd } from '../../os/memfd.js';
import type { FdStore } from '../../ops/fd-store.js';
import { CONFIG_SCHEMA, type Configuration } from './read.js';
import { documentMistakes } from './rules.js';
import { compareShape } from './shape.js';

export class KeptConfiguration {
  readonly #store: FdStore | null;
  /** Of the daemon before this one, the newest first. */
  readonly #left: readonly number[];
  #fds: number[];

  /** `store`: null where nobody keeps anything. */
  constructor(store: FdStore | null) {
    this.#store = store;
    const names = store?.left('config') ?? [];
    this.#left = names.reverse().flatMap((name) => store?.claim(name) ?? []);
    this.#fds = [...this.#left];
  }

  /** The configuration that the daemon before this one went by; null: there is none that this build can go by. */
  read(): Configuration | null {
    return this.#left.map(readKept).find((configuration) => configuration !== null) ?? null;
  }

  /** Takes the place of the one that was kept before. Throws SystemError. */
  write(configuration: Configuration): void {
    if (this.#store === null) return;
    const bytes = new TextEncoder().encode(JSON.stringify(configuration));
    const fd = createMemfd('balloond-config', bytes.length);
    writeSync(fd, bytes, 0, bytes.length, 0);
    this.#store.keep(fd, 'config');
    for (const old of this.#fds) closeFd(old);
    this.#fds = [fd];
  }
}

/** What another build wrote may mean something else to this one. */
function readKept(fd: number): Configuration | null {
  let found: Partial<Configuration>;
  try {
    // Not from where the reader before this one stopped.
    found = JSON.parse(readFileSync(`/proc/self/fd/${fd}`, 'utf8')) as Partial<Configuration>;
  } catch {
    return null;
  }
  const { config, file, files, controlPath, sockets, metrics } = found;
  const paths: unknown[] = [file, controlPath, ...(Array.isArray(files) ? (files as unknown[]) : [null])];
  if (config === undefined || sockets === undefined || !paths.every((path) => typeof path === 'string')) {
    return null;
  }
  const documents = [config, { socket: sockets }, ...(metrics === null ? [] : [{ metrics }])];
  const wrong = documents.some((document) => compareShape(CONFIG_SCHEMA, document).mistakes.length > 0);
  return wrong || documentMistakes(config).length > 0 ? null : (found as Configuration);
}
