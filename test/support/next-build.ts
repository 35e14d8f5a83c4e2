// The daemon as it will be one day: of this source, but with a record of the next version.
import { readFileSync, renameSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const ROOT = join(import.meta.dirname, '../../..');

/** Adds a field that has to be there, an upgrade that makes it of older records, and whoever writes it. */
const CHANGES: readonly [RegExp, (found: string) => string][] = [
  [/(?<=\nconst VERSION = )\d+(?=;)/, (version) => String(Number(version) + 1)],
  [/(?<=\n {2}version: Type\.Literal\(VERSION\),)/, () => '\n  newer: Type.Literal(true),'],
  [
    /(?<=\nconst UPGRADES[^\n]*\n)[^]*?(?=\n\];)/,
    (all) => `${all}\n(old) => ({ ...old, version: VERSION, newer: true }),`,
  ],
  [/(?<=JSON\.stringify\(\{ version: VERSION, )/, () => 'newer: true, '],
];

/** Returns the path of the program. */
export async function buildNext(): Promise<string> {
  const outfile = join(ROOT, 'out/next/balloond.js');
  await build({
    entryPoints: [join(ROOT, 'bin/balloond.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'warning',
    external: ['unix-dgram'],
    // As in scripts/bundle.
    banner: {
      js: "import{createRequire as r}from'node:module';const require=r(import.meta.url);",
    },
    plugins: [
      {
        name: 'next',
        setup: (bundling) => {
          bundling.onLoad({ filter: /\/vm\/record\.ts$/ }, ({ path }) => {
            let contents = readFileSync(path, 'utf8');
            for (const [where, change] of CHANGES) {
              if (!where.test(contents)) throw new Error(`nothing matches ${String(where)}`);
              contents = contents.replace(where, change);
            }
            return { contents, loader: 'ts' };
          });
        },
      },
    ],
  });
  return outfile;
}

/** Where one build after the other is installed. */
export class Installation {
  readonly program: string;
  readonly #coming: string;

  constructor(folder: string, build: string) {
    this.program = join(folder, 'balloond.js');
    this.#coming = join(folder, 'coming');
    this.install(build);
  }

  install(build: string): void {
    symlinkSync(build, this.#coming);
    renameSync(this.#coming, this.program);
  }
}
