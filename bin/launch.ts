#!/usr/bin/env node
/**
 * Runs the parts of balloond beside this file, which is balloond.js once scripts/bundle has made the parts and has put this
 * file in the place of the program. Where $CACHE_DIRECTORY is given (systemd.exec(5); the keeper gives it as well), each
 * part runs with the machine code that V8 made of it at an earlier start: guests wait while V8 compiles.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Script } from 'node:vm';

/** The first part, by its file's name, which has a checksum in it; scripts/bundle writes the name here. */
declare const MAIN: string;
/** By then the daemon serves, and what serving takes has been compiled. */
const KEEP_AFTER_MS = 500;
const SUFFIX = '.v8code';

interface Part {
  readonly exports: unknown;
  readonly script: Script;
}
type Run = (
  require: (name: string) => unknown,
  module: { exports: unknown },
  filename: string,
  dirname: string,
) => void;

const parts = new Map<string, Part>();
const [folder] = process.env['CACHE_DIRECTORY']?.split(delimiter) ?? [];
load(MAIN);
if (folder !== undefined) setTimeout(() => keep(folder), KEEP_AFTER_MS).unref();

function load(name: string): unknown {
  const before = parts.get(name);
  if (before !== undefined) return before.exports;
  const file = join(__dirname, name);
  const cachedData = readKept(name);
  const text = readFileSync(file).toString('latin1');
  const script = new Script(`(function (require, module, __filename, __dirname) {${text}\n})`, {
    filename: file,
    ...(cachedData !== undefined && { cachedData }),
  });
  const part = { exports: {}, script };
  parts.set(name, part);
  (script.runInThisContext() as Run)(
    (wanted) => (wanted.startsWith('./') ? load(wanted.slice(2)) : module.require(wanted)),
    part,
    file,
    __dirname,
  );
  return part.exports;
}

function readKept(name: string): Buffer | undefined {
  if (folder === undefined) return undefined;
  try {
    return readFileSync(join(folder, `${name}${SUFFIX}`));
  } catch {
    return undefined;
  }
}

/** Without the machine code, the next start takes longer, and nothing else. */
function keep(into: string): void {
  try {
    for (const [name, { script }] of parts) {
      // V8 looks at its version, its flags and the length of the source.
      if (script.cachedDataRejected === false) continue;
      const coming = join(into, `${process.pid}.coming`);
      writeFileSync(coming, script.createCachedData());
      renameSync(coming, join(into, `${name}${SUFFIX}`));
    }
    for (const other of readdirSync(into)) {
      // Also what a start left that was killed while it wrote.
      const gone = other.endsWith(SUFFIX) && !existsSync(join(__dirname, other.slice(0, -SUFFIX.length)));
      if (gone || other.endsWith('.coming')) rmSync(join(into, other), { force: true });
    }
  } catch {
    return;
  }
}
