// The programs with a further row in one of their tables: all other sources are as they are.
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build } from 'esbuild';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '../../..');

/** The text of a source, by its path in the repository. */
export function sourceOf(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

export function replaced(text: string, was: string, is: string): string {
  if (!text.includes(was)) throw new Error(`the table has no ${was}`);
  return text.replace(was, () => is);
}

/** The mistakes that the compiler finds in the programs with another text of a table, each with its file. */
export class Compiler {
  readonly #path: string;
  readonly #roots: readonly string[];
  readonly #options: ts.CompilerOptions;
  readonly #host: ts.CompilerHost;
  #program: ts.Program | undefined;
  #table = '';

  /** Paths in the repository: of the table, and of the programs. */
  constructor(table: string, programs: readonly string[]) {
    this.#path = join(ROOT, table);
    this.#roots = programs.map((path) => join(ROOT, path));
    const config = ts.readConfigFile(join(ROOT, 'tsconfig.json'), (path) => ts.sys.readFile(path));
    const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, ROOT);
    this.#options = { ...options, noEmit: true };
    this.#host = ts.createCompilerHost(this.#options);
    const read = this.#host.getSourceFile.bind(this.#host);
    const files = new Map<string, ts.SourceFile | undefined>();
    this.#host.getSourceFile = (path, target) => {
      if (path === this.#path) return ts.createSourceFile(path, this.#table, target, true);
      if (!files.has(path)) files.set(path, read(path, target));
      return files.get(path);
    };
  }

  /** `everywhere`: also in all other files. */
  mistakes(table: string, everywhere = false): string[] {
    this.#table = table;
    this.#program = ts.createProgram(this.#roots, this.#options, this.#host, this.#program);
    const where = everywhere ? undefined : this.#program.getSourceFile(this.#path);
    return this.#program
      .getSemanticDiagnostics(where)
      .map(
        ({ file, messageText }) =>
          `${file?.fileName.slice(ROOT.length + 1) ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`,
      );
  }
}

/** Exports of a module in test/vm, given as its text, where the source at `path` has these contents. */
export async function importedWith(path: string, contents: string, module: string): Promise<unknown> {
  const outfile = join(ROOT, 'out/next/vm', `${basename(path, '.ts')}.js`);
  await build({
    stdin: { contents: module, resolveDir: join(ROOT, 'test/vm'), loader: 'ts' },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'warning',
    packages: 'external',
    plugins: [
      {
        name: 'row',
        setup: (bundling) => {
          // It looks for package.json from where it is.
          const version = join(ROOT, 'out/src/version.js');
          bundling.onResolve({ filter: /\/version\.js$/ }, () => ({ path: version, external: true }));
          bundling.onLoad({ filter: /\.ts$/ }, ({ path: loaded }) =>
            loaded === join(ROOT, path) ? { contents, loader: 'ts' } : null,
          );
        },
      },
    ],
  });
  return import(outfile);
}
