/** The sources keep their shape, where the linter does not look. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { LIMIT_NAMES, LIMITS } from '../../protocol/control/limits.js';
import { readPage, ROOT } from './page.js';

/** As eslint.config.js has it for TypeScript. */
const MAX_LINES = 450;

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** The TypeScript files that programs are made of. */
const files = ['bin', 'src', 'protocol'].flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name)),
);

void t.test('a file of the native helper is short', (t) => {
  const sources = readdirSync(join(ROOT, 'src/native')).filter((name) => /\.[ch]$/.test(name));
  t.ok(sources.length > 10, `${sources.length} files`);
  for (const name of sources) {
    const lines = read(`src/native/${name}`).trimEnd().split('\n').length;
    t.ok(lines <= MAX_LINES, `src/native/${name} has ${lines} lines`);
  }
  t.end();
});

void t.test('what a file exports is named in another one', (t) => {
  const others = ['test', 'bench', 'scripts'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.[jt]s$/.test(name) && !name.includes('node_modules'))
      .map((name) => join(folder, name)),
  );
  const named = new Map<string, number>();
  for (const file of [...files, ...others])
    for (const word of new Set(read(file).match(/\w+/g))) named.set(word, (named.get(word) ?? 0) + 1);
  let count = 0;
  for (const file of files) {
    const exported =
      /^export (?:abstract |async )?(?:const|let|function\*?|class|interface|type|enum) (\w+)/gm;
    for (const [, name = ''] of read(file).matchAll(exported)) {
      count++;
      if (named.get(name) === 1)
        t.fail(`${file} exports ${name}, which no other file names: do not export it`);
    }
  }
  t.ok(count > 500, `${count} exports`);
  t.end();
});

/** Files that import each other, also by way of others: each group once. Types count, and so does what loads on use. */
function circles(imports: ReadonlyMap<string, readonly string[]>): string[][] {
  const reached = new Map<string, Set<string>>();
  for (const file of imports.keys()) {
    const seen = new Set<string>();
    const ahead = [...(imports.get(file) ?? [])];
    for (let next = ahead.pop(); next !== undefined; next = ahead.pop()) {
      if (seen.has(next)) continue;
      seen.add(next);
      ahead.push(...(imports.get(next) ?? []));
    }
    reached.set(file, seen);
  }
  const groups = [...imports.keys()].map((file) =>
    [...(reached.get(file) ?? [])].filter((other) => reached.get(other)?.has(file)).sort(),
  );
  return [
    ...new Map(groups.filter((group) => group.length > 0).map((group) => [group.join(), group])).values(),
  ];
}

void t.test('no files import each other', (t) => {
  const imports = new Map(
    files.map((file) => [
      file,
      ts
        .preProcessFile(read(file), true, true)
        .importedFiles.map(({ fileName }) => fileName)
        .filter((name) => name.startsWith('.'))
        .map((name) => join(dirname(file), name).replace(/\.js$/, '.ts')),
    ]),
  );
  for (const [file, others] of imports)
    for (const other of others) t.ok(imports.has(other), `${file} imports ${other}`);
  t.same(circles(imports), []);
  const circular = { a: ['b'], b: ['c', 'd'], c: ['b'], d: [], e: ['e'] };
  t.same(circles(new Map(Object.entries(circular))), [['b', 'c'], ['e']], 'a circle would be found');
  t.end();
});

void t.test('the lists of files to touch name files that are there', (t) => {
  const { source, spans } = readPage('CONTRIBUTING.md');
  const begin = source.slice(0, source.indexOf('## Files to touch')).split('\n').length;
  let folder = '';
  let count = 0;
  for (const { line, text } of spans) {
    // The name of a file alone stands behind another one of its folder.
    const [, inFolder, name] = /^([\w-]+(?:\/[\w-]+)*\/)?([\w-]+\.\w+|open-limits)$/.exec(text) ?? [];
    if (line < begin || name === undefined || /^[A-Z]\w+\.\w+$/.test(text)) continue;
    folder = inFolder ?? folder;
    count++;
    const path = join(ROOT, folder, name);
    t.ok(existsSync(path) && statSync(path).isFile(), `CONTRIBUTING.md:${line}: ${text} is a file`);
  }
  t.ok(count > 40, `${count} files`);
  t.end();
});

void t.test('each limit is in the page of limits, and its file is opened for the daemon', (t) => {
  const rows = [...read('docs/limits.md').matchAll(/^\| `(\w+)` \| `(memory\.[\w.]+)` \|/gm)];
  const limits = LIMIT_NAMES.map((name) => [name, LIMITS[name].file]);
  t.same(
    rows.map(([, name, file]) => [name, file]),
    limits,
  );
  const opened = limits.map(([, file]) => file).join(' ');
  const script = read('systemd/open-limits');
  for (const command of ['chgrp balloond', 'chmod g+w'])
    t.ok(script.includes(`\n${command} ${opened}\n`), command);
  t.end();
});
