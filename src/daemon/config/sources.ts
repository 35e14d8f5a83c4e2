/** The files that a configuration consists of, as they are on disk. */
import { refusal } from '../../../protocol/control/refusal.js';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { DEFAULT_CONFIG_PATH } from '../options.js';
import type { ConfigMistake } from './mistakes.js';

/** One file that was read. */
export interface ConfigSource {
  readonly path: string;
  readonly text: string;
  /** What the file says; empty where the file is not TOML. */
  readonly document: Readonly<Record<string, unknown>>;
}

interface ConfigSources {
  /** In the order in which later files win over earlier ones. */
  readonly sources: readonly ConfigSource[];
  readonly mistakes: readonly ConfigMistake[];
}

/** The folder of files that are read after `path`. */
function dropInFolder(path: string): string {
  return `${path}.d`;
}

/**
 * Reads `config`, or else the default file where it exists, and then the files of its drop-in folder whose names end
 * with .toml, in the order of their names' bytes. A file that cannot be read, or is not TOML, is a mistake.
 */
export function readSources(config: string | undefined): ConfigSources {
  const sources: ConfigSource[] = [];
  const mistakes: ConfigMistake[] = [];
  const main = config ?? DEFAULT_CONFIG_PATH;
  const read = (path: string, mayBeAbsent: boolean): void => {
    const source = readSource(path, mayBeAbsent, (mistake) => mistakes.push(mistake));
    if (source !== null) sources.push(source);
  };
  read(main, config === undefined);
  const folder = dropInFolder(main);
  for (const name of dropIns(folder, (mistake) => mistakes.push(mistake))) read(join(folder, name), false);
  return { sources, mistakes };
}

type Report = (mistake: ConfigMistake) => void;

function dropIns(folder: string, report: Report): string[] {
  try {
    const names = readdirSync(folder).filter((name) => name.endsWith('.toml') && !name.startsWith('.'));
    return names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || (codeOf(error) === 'ENOTDIR' && !isThere(folder))) return [];
    const remedy = 'make it a folder that balloond may read, or move it away';
    report({ file: folder, place: null, what: refusal(`cannot be read (${codeOf(error)})`, remedy) });
    return [];
  }
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function readSource(path: string, mayBeAbsent: boolean, report: Report): ConfigSource | null {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if (mayBeAbsent && codeOf(error) === 'ENOENT') return null;
    const remedy = 'give the path of a file that may be read';
    report({ file: path, place: null, what: refusal(`cannot be read (${codeOf(error)})`, remedy) });
    return null;
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    const what = refusal('is not UTF-8', 'save the file in UTF-8, or remove the letters that are not');
    report({ file: path, place: firstNotUtf8(bytes), what });
    return null;
  }
  try {
    return { path, text, document: parse(text) };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [reason = 'not TOML'] = error.message.replace(/^Invalid TOML document: /, '').split('\n');
    const what = refusal(
      `is not TOML here (${PLAINER[reason] ?? reason})`,
      'see balloond.toml(5) for examples',
    );
    report({ file: path, place: { line: error.line, column: error.column }, what });
    return { path, text, document: {} };
  }
}

/** The parser's reasons that tell its own view of a mistake, and the mistake that people make. */
const PLAINER: Readonly<Record<string, string>> = {
  'control characters are not allowed in strings': 'a string has no closing quote on its line',
  'trying to redefine an already defined table or value': 'the same key or table stands further up',
};

/** Of bytes that are not UTF-8. */
function firstNotUtf8(bytes: Buffer): { line: number; column: number } {
  let good = 0;
  let bad = bytes.length;
  const decodes = (length: number): boolean => {
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length), { stream: true });
      return true;
    } catch {
      return false;
    }
  };
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (decodes(middle)) good = middle;
    else bad = middle;
  }
  const before = new TextDecoder().decode(bytes.subarray(0, good), { stream: true }).split('\n');
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
