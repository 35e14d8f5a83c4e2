#!/usr/bin/env node
/**
 * Runs balloond.cjs, the bundle beside this file, with the machine code that V8 made of it at an earlier start, where
 * $CACHE_DIRECTORY is given (systemd.exec(5); the keeper gives it as well): guests wait while V8 compiles. scripts/bundle puts
 * this file in the place of the program that it has bundled.
 */
// An import statement would have Node look at every property of these modules, and load more for it.
const fs = process.getBuiltinModule('node:fs');
const { createRequire } = process.getBuiltinModule('node:module');
const path = process.getBuiltinModule('node:path');
const { fileURLToPath } = process.getBuiltinModule('node:url');
const { Script } = process.getBuiltinModule('node:vm');

/** The first digits of the bundle's SHA-256; scripts/bundle writes them here, so that no start has to count them. */
declare const BUNDLE: string;
/** By then the daemon serves, and what serving takes has been compiled. */
const KEEP_AFTER_MS = 500;
const SUFFIX = '.v8code';

type Run = (require: NodeJS.Require, module: { exports: unknown }, filename: string, dirname: string) => void;

const file = fileURLToPath(new URL('balloond.cjs', import.meta.url));
const [folder] = process.env['CACHE_DIRECTORY']?.split(':') ?? [];
// V8 itself looks at its version, its flags and the length of the source.
const name = `${BUNDLE}${SUFFIX}`;
const kept = folder === undefined ? undefined : readKept(path.join(folder, name));
const script = new Script(
  `(function (require, module, __filename, __dirname) {${fs.readFileSync(file, 'latin1')}\n})`,
  {
    filename: file,
    ...(kept !== undefined && { cachedData: kept }),
  },
);
if (folder !== undefined && (kept === undefined || script.cachedDataRejected === true)) {
  setTimeout(() => keep(folder), KEEP_AFTER_MS).unref();
}
(script.runInThisContext() as Run)(createRequire(file), { exports: {} }, file, path.dirname(file));

function readKept(from: string): Buffer | undefined {
  try {
    return fs.readFileSync(from);
  } catch {
    return undefined;
  }
}

/** Without it, the next start takes longer, and nothing else. */
function keep(into: string): void {
  try {
    const coming = path.join(into, `${process.pid}.coming`);
    fs.writeFileSync(coming, script.createCachedData());
    fs.renameSync(coming, path.join(into, name));
    for (const other of fs.readdirSync(into)) {
      // Also what a start left that was killed while it wrote.
      if (/\.(v8code|coming)$/.test(other) && other !== name)
        fs.rmSync(path.join(into, other), { force: true });
    }
  } catch {
    return;
  }
}
