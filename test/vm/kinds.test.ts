// A further kind of device is one more row of src/vm/kinds.ts: views, targets, orders and records go by the row, and the
// compiler asks for whatever a row lacks. The table with the row is this file's, all other sources are as they are.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import t from 'tap';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '../../..');
const TABLE = join(ROOT, 'src/vm/kinds.ts');
const KIND = 'qmp-balloon';
const before = readFileSync(TABLE, 'utf8');
const named = replaced(before, "'cache-balloon'] as const", `'cache-balloon', '${KIND}'] as const`);
const ROW = [
  "part: 'balloon'",
  "words: 'balloon of QEMU'",
  "targetWords: 'target of the balloon of QEMU'",
  "driver: 'virtio_balloon'",
  'features: []',
  'statsFeature: null',
  'make: (memory, host, observer, offered, discards) => new Balloon(memory, host, observer, offered, discards)',
];

function replaced(text: string, was: string, is: string): string {
  if (!text.includes(was)) throw new Error(`the table has no ${was}`);
  return text.replace(was, () => is);
}

function withRow(row: readonly string[]): string {
  return replaced(
    named,
    "  'cache-balloon': {\n",
    `  '${KIND}': { ${row.join(', ')} },\n  'cache-balloon': {\n`,
  );
}

/** The mistakes that the compiler finds in the daemon with this table, each with its file. */
class Compiler {
  readonly #options: ts.CompilerOptions;
  readonly #host: ts.CompilerHost;
  #program: ts.Program | undefined;
  #table = before;

  constructor() {
    const config = ts.readConfigFile(join(ROOT, 'tsconfig.json'), (path) => ts.sys.readFile(path));
    const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, ROOT);
    this.#options = { ...options, noEmit: true };
    this.#host = ts.createCompilerHost(this.#options);
    const read = this.#host.getSourceFile.bind(this.#host);
    const files = new Map<string, ts.SourceFile | undefined>();
    this.#host.getSourceFile = (path, target) => {
      if (path === TABLE) return ts.createSourceFile(path, this.#table, target, true);
      if (!files.has(path)) files.set(path, read(path, target));
      return files.get(path);
    };
  }

  /** `everywhere`: also in all other files. */
  mistakes(table: string, everywhere = false): string[] {
    this.#table = table;
    this.#program = ts.createProgram([join(ROOT, 'src/main.ts')], this.#options, this.#host, this.#program);
    const where = everywhere ? undefined : this.#program.getSourceFile(TABLE);
    return this.#program
      .getSemanticDiagnostics(where)
      .map(
        ({ file, messageText }) =>
          `${file?.fileName.slice(ROOT.length + 1) ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`,
      );
  }
}

void t.test('a row is all that a further kind takes', (t) => {
  const compiler = new Compiler();
  t.same(compiler.mistakes(withRow(ROW), true), []);
  t.match(compiler.mistakes(named), [/^src\/vm\/kinds\.ts: Property '.*qmp-balloon.*' is missing/], 'no row');
  const [lacking = ''] = compiler.mistakes(withRow([]));
  t.match(
    lacking,
    /^src\/vm\/kinds\.ts: Type '\{\}' is missing .* part, words, targetWords, driver, and 3 more/,
  );
  t.match(compiler.mistakes(withRow(["part: 'disk'", ...ROW.slice(1)])), [/^src\/vm\/kinds\.ts: .*"disk"/]);
  t.end();
});

/** What the program below says, as it is with the row. */
interface Said {
  readonly before: object;
  readonly after: object;
  readonly again: object;
  readonly refused: string;
  readonly live: object;
}

const SCRIPT = `
import { NAME, wire } from '../support/vm-on-the-wire.js';
export async function story(t) {
  const { fleet, connect, gone } = wire(t, {}, '${KIND}');
  await connect('balloon');
  const before = fleet.control.find(NAME);
  const after = await fleet.control.setTarget(NAME, { balloonBytes: 2 ** 20 });
  const refused = await fleet.control.setTarget(NAME, { cacheLimitBytes: 7 }).catch(({ message }) => message);
  await gone();
  await connect('balloon');
  return { before, after, again: fleet.control.find(NAME), refused, live: fleet.control.live() };
}
`;

void t.test('a VM with such a device is shown, commanded and found again like any other', async (t) => {
  const outfile = join(ROOT, 'out/next/vm/kinds.js');
  await build({
    stdin: { contents: SCRIPT, resolveDir: join(ROOT, 'test/vm'), loader: 'ts' },
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
          bundling.onLoad({ filter: /\/src\/vm\/kinds\.ts$/ }, () => ({
            contents: withRow(ROW),
            loader: 'ts',
          }));
        },
      },
    ],
  });
  const { story } = (await import(outfile)) as { story: (t: object) => Promise<Said> };
  const { before, after, again, refused, live } = await story(t);
  t.match(before, {
    balloon: { targetBytes: 0 },
    cache: null,
    policy: { mode: 'observe' },
    state: 'running',
  });
  t.match(after, {
    balloon: { targetBytes: 2 ** 20 },
    policy: { mode: 'manual' },
    orders: [{ order: 'target' }],
  });
  t.match(again, { balloon: { targetBytes: 2 ** 20 } }, 'after a power cycle');
  t.match(refused, /has no page cache balloon/);
  t.match(live, { vms: [{ name: 'web', state: 'running', cacheBytes: null, targetBytes: 2 ** 20 }] });
});
