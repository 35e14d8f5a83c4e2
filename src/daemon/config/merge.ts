/** How the files of a configuration become one. */
import { placeInToml, type Place } from '../toml-place.js';
import type { ConfigSource } from './sources.js';

type Table = Readonly<Record<string, unknown>>;

interface MergedConfig {
  readonly document: Table;
  /** Where the value that `where` leads to was written; null where no file has it. */
  readonly placeOf: (where: readonly string[]) => { file: string; place: Place } | null;
}

/** Arrays of tables whose entries add up; all other arrays of a later file replace those of the files before. */
const ADDING: readonly string[] = ['socket', 'qmp', 'vm'];

/**
 * Tables merge key by key, and the last file that has a key wins. [[socket]] and [[vm]] add up in the order of the files; a
 * file with [[policy.band]] replaces all bands of the files before it, since their order is their rank.
 */
export function mergeSources(sources: readonly ConfigSource[], documents: readonly Table[]): MergedConfig {
  const document = documents.reduce<Table>((merged, next) => mergeTables(merged, next, []), {});
  const placeOf = (where: readonly string[]): { file: string; place: Place } | null => {
    const origin = sourceOf(documents, where);
    const source = sources[origin.source];
    return source === undefined ? null : { file: source.path, place: placeInToml(source.text, origin.where) };
  };
  return { document, placeOf };
}

function mergeTables(before: Table, next: Table, where: readonly string[]): Table {
  const merged: Record<string, unknown> = { ...before };
  for (const [key, value] of Object.entries(next)) {
    const old = merged[key];
    if (where.length === 0 && ADDING.includes(key) && Array.isArray(old) && Array.isArray(value)) {
      merged[key] = [...(old as unknown[]), ...(value as unknown[])];
    } else if (isTable(old) && isTable(value)) merged[key] = mergeTables(old, value, [...where, key]);
    else merged[key] = value;
  }
  return merged;
}

/** The last document with a value there, and the way to the value in it. */
function sourceOf(
  documents: readonly Table[],
  where: readonly string[],
): { source: number; where: readonly string[] } {
  const [key = '', index = '', ...more] = where;
  if (ADDING.includes(key) && index !== '') {
    let rest = Number(index);
    for (const [source, document] of documents.entries()) {
      const entries = document[key];
      const count = Array.isArray(entries) ? entries.length : 0;
      if (rest < count) return { source, where: [key, String(rest), ...more] };
      rest -= count;
    }
  }
  for (let length = where.length; length > 0; length--) {
    const way = where.slice(0, length);
    const source = documents.findLastIndex((document) => lookUp(document, way) !== undefined);
    if (source >= 0) return { source, where };
  }
  return { source: documents.length - 1, where };
}

function lookUp(document: unknown, where: readonly string[]): unknown {
  return where.reduce<unknown>((value, key) => {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    return (value as Table)[key];
  }, document);
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
