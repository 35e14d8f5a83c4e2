import { refusal, refusalLines, refusalOf, type RefusalText } from '../../../protocol/control/refusal.js';
import type { Place } from '../toml-place.js';
import { SettingsError } from '../settings.js';

/** One mistake of a configuration: where it is, and a sentence without its subject. */
export interface ConfigMistake {
  /** A path, or null for a flag of the command line. */
  readonly file: string | null;
  /** Null for a mistake of the file as a whole. */
  readonly place: Place | null;
  /** The key as `socket.0.path`, or the flag; without one, the file itself is meant. */
  readonly key?: string;
  readonly what: RefusalText;
}

/** `FILE:LINE:COLUMN: KEY is wrong: what to do`. */
function mistakeLine({ file, place, key, what }: ConfigMistake): RefusalText {
  if (file === null) return refusalOf(key ?? 'the command line', what);
  const at = place === null ? file : `${file}:${place.line}:${place.column}`;
  if (key !== undefined) return refusalOf(`${at}: ${key}`, what);
  return refusalOf(place === null ? at : `${at}: the file`, what);
}

/** A configuration with mistakes; the message has one line for each. */
export class ConfigError extends SettingsError {
  readonly lines: readonly RefusalText[];

  constructor(mistakes: readonly ConfigMistake[]) {
    const lines = inOrder(mistakes).map(mistakeLine);
    super(refusalLines(lines));
    this.lines = lines;
  }

  /** The first mistake, and how many more there are. */
  get brief(): RefusalText {
    const first = this.lines[0] ?? this.message;
    const more = this.lines.length - 1;
    if (more === 0) return first;
    const others = more === 1 ? 'is 1 more mistake' : `are ${more} more mistakes`;
    return refusal(first, `there ${others}, see balloond --check-config`, '; ');
  }
}

/** By file, in the order in which files are read, flags last; in a file from the top to the bottom. */
function inOrder(mistakes: readonly ConfigMistake[]): ConfigMistake[] {
  return [...mistakes].sort((a, b) => {
    if (a.file !== b.file) {
      return a.file === null
        ? 1
        : b.file === null
          ? -1
          : Buffer.compare(Buffer.from(a.file), Buffer.from(b.file));
    }
    const [from, to] = [a.place ?? NOWHERE, b.place ?? NOWHERE];
    return from.line - to.line || from.column - to.column;
  });
}

const NOWHERE: Place = { line: 0, column: 0 };
