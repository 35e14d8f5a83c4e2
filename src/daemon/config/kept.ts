/** The configuration in force, in a file in memory, for the daemon after this one: its files may have mistakes by then. */
import type { FdStore } from '../../ops/fd-store.js';
import { KeptText } from '../../ops/kept-text.js';
import { CONFIG_SCHEMA, type Configuration } from './read.js';
import { documentMistakes } from './rules.js';
import { compareShape } from './shape.js';

export class KeptConfiguration {
  readonly #kept: KeptText;

  /** `store`: null where nobody keeps anything. */
  constructor(store: FdStore | null) {
    this.#kept = new KeptText(store, 'config');
  }

  /** The configuration that the daemon before this one went by; null: there is none that this build can go by. */
  read(): Configuration | null {
    return this.#kept.left.map(readKept).find((configuration) => configuration !== null) ?? null;
  }

  /** Takes the place of the one that was kept before. Throws SystemError. */
  write(configuration: Configuration): void {
    this.#kept.write(JSON.stringify(configuration));
  }
}

/** What another build wrote may mean something else to this one. */
function readKept(text: string): Configuration | null {
  let parsed: Partial<Configuration>;
  try {
    parsed = JSON.parse(text) as Partial<Configuration>;
  } catch {
    return null;
  }
  const { config, file, files, controlPath, sockets, metrics } = parsed;
  const paths: unknown[] = [file, controlPath, ...(Array.isArray(files) ? (files as unknown[]) : [null])];
  if (config === undefined || sockets === undefined || !paths.every((path) => typeof path === 'string')) {
    return null;
  }
  const documents = [config, { socket: sockets }, ...(metrics === null ? [] : [{ metrics }])];
  const wrong = documents.some((document) => compareShape(CONFIG_SCHEMA, document).mistakes.length > 0);
  return wrong || documentMistakes(config).length > 0 ? null : (parsed as Configuration);
}
