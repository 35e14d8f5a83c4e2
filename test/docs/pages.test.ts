/** Nothing of a page is left to chance: each block is run or checked, and whatever a page names is there. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import t from 'tap';
import { parseAllDocuments } from 'yaml';
import { commandsOf } from './commands.js';
import { allPages, hasCommands, readPage, ROOT, type Block, type Page } from './page.js';

const pages = allPages();
const blocks = pages.flatMap((page) => page.blocks);
const where = ({ page, line }: Block): string => `${page}:${line}`;
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
/** Of the page cache balloon's configuration space, in docs/cache-balloon.md and in what QEMU is told. */
const WORD_BYTES = 4;

/** Languages whose blocks are looked at here, or by test/docs/run.check.ts (toml and ini). */
const PARSED = new Set(['json', 'yaml', 'xml', 'toml', 'ini', 'c']);

void t.test('each block is run, checked, or says why not', (t) => {
  for (const block of blocks) {
    const { language, mark } = block;
    t.ok(mark !== null || PARSED.has(language), `${where(block)} has no comment that says how it is run`);
    if (mark?.kind === 'run') t.ok(hasCommands(language), `${where(block)} is ${language || 'no language'}`);
    if (mark?.kind === 'not run') t.match(mark.reason, /\w+ \w+ \w+/, where(block));
    if (mark?.kind === 'checked')
      t.ok(read(mark.by).includes(block.page), `${mark.by} reads ${where(block)}`);
  }
  t.end();
});

void t.test('blocks of data are data', (t) => {
  const printed = execFileSync(
    process.execPath,
    [
      join(ROOT, 'out/bin/balloonctl.js'),
      'qemu-args',
      '--for',
      'libvirt',
      '--memory',
      '2G',
      '--name',
      'web-1',
    ],
    { encoding: 'utf8' },
  ).replaceAll(/^ +/gm, '');
  for (const block of blocks) {
    if (block.language === 'json') t.doesNotThrow(() => JSON.parse(block.text) as unknown, where(block));
    else if (block.language === 'yaml')
      for (const { errors } of parseAllDocuments(block.text)) t.same(errors, [], where(block));
    else if (block.language === 'xml')
      t.ok(printed.includes(block.text.replaceAll(/^ +/gm, '')), `${where(block)} is printed by qemu-args`);
    else if (block.language === 'c') {
      const fields = block.text.match(/^\s+le32 \w+;/gm) ?? [];
      t.match(
        execFileSync(
          process.execPath,
          [join(ROOT, 'out/bin/balloonctl.js'), 'qemu-args', '--cache-balloon'],
          {
            encoding: 'utf8',
          },
        ),
        `config_size=${fields.length * WORD_BYTES}`,
        where(block),
      );
    }
  }
  t.end();
});

void t.test('links lead somewhere', (t) => {
  const byPath = new Map(pages.map((page) => [page.path, page]));
  for (const { path, links } of pages) {
    for (const { line, text } of links) {
      if (/^[a-z]+:/.test(text)) continue;
      const [file = '', anchor] = text.split('#');
      const target = file === '' ? path : normalize(join(dirname(path), file));
      t.ok(existsSync(join(ROOT, target)), `${path}:${line}: ${text}`);
      if (anchor !== undefined)
        t.ok(byPath.get(target)?.anchors.has(anchor), `${path}:${line}: ${text} has no such heading`);
    }
  }
  t.end();
});

/** What somebody would type: the commands of blocks, and code spans. */
function typed({ blocks, spans }: Page): { line: number; text: string }[] {
  const commands = blocks.filter(({ language }) => hasCommands(language)).flatMap((each) => commandsOf(each));
  return [...commands, ...spans];
}

void t.test('scripts, benchmarks and compiled files that pages run exist', (t) => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const ofBench = read('scripts/bench');
  const ofFuzz = read('test/fuzz/run.ts') + read('scripts/fuzz');
  let count = 0;
  for (const page of pages) {
    for (const { line, text } of typed(page)) {
      const at = `${page.path}:${line}: ${text}`;
      for (const [, name = ''] of text.matchAll(/\bnpm run ([\w-]+)/g)) t.ok(name in scripts, at);
      for (const [, name = '', options = ''] of text.matchAll(/\bnpm run bench -- ([\w-]+)([^#&|\n]*)/g)) {
        t.match(ofBench, new RegExp(`^[^#]*\\b${name}( \\||\\))`, 'm'), at);
        for (const [option] of options.matchAll(/--[\w-]+/g)) t.ok(ofBench.includes(`[${option}`), at);
      }
      for (const [, options = ''] of text.matchAll(/\bnpm run fuzz -- ([^#&|\n]*)/g))
        for (const [, option = ''] of options.matchAll(/--([\w-]+)/g)) t.ok(ofFuzz.includes(option), at);
      for (const [, file = ''] of text.matchAll(/(?<!\/)\bout\/([\w/.-]+)\.js\b/g)) {
        count++;
        t.ok(existsSync(join(ROOT, `${file}.ts`)), at);
      }
      for (const [, file = ''] of text.matchAll(/\bsh (scripts\/[\w-]+)/g))
        t.ok(existsSync(join(ROOT, file)), at);
    }
  }
  t.ok(count > 10, `${count} compiled files`);
  t.end();
});

const FOLDERS = readdirSync(ROOT, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && !/^(\.|node_modules|out$)/.test(entry.name))
  .map(({ name }) => name);

const MADE = read('.gitignore').split('\n');

/** `…` and `*` stand for any part of a name; an extension may be left out. What commands make is there afterwards. */
function isInRepository(path: string): boolean {
  if (MADE.includes(`${path}/`)) return true;
  const folder = dirname(path);
  if (!existsSync(join(ROOT, folder))) return false;
  const name = path.slice(folder.length + 1);
  if (name === '') return true;
  const pattern = name.replaceAll(/[.+]/g, '\\$&').replaceAll(/\*|…/g, '.*');
  return readdirSync(join(ROOT, folder)).some((entry) => new RegExp(`^${pattern}(\\..*)?$`).test(entry));
}

void t.test('files that pages name are in the repository, or installed', (t) => {
  const stage = t.testdir();
  execFileSync('sh', [join(ROOT, 'scripts/install-system')], { env: { ...process.env, DESTDIR: stage } });
  let count = 0;
  for (const { path, spans } of pages) {
    for (const { line, text } of spans) {
      const at = `${path}:${line}: ${text}`;
      if (new RegExp(`^(${FOLDERS.join('|')})/[^\\s:]+$`).test(text)) {
        count++;
        t.ok(isInRepository(text.replace(/\/$/, '')), `${at} is in the repository`);
      }
      if (/^\/usr\/\S*balloon/.test(text)) t.ok(existsSync(join(stage, text)), `${at} is installed`);
    }
  }
  t.ok(count > 40, `${count} of them`);
  t.end();
});

void t.test('a page is read as it is', (t) => {
  const page = t.testdir({
    'page.md': [
      ...[
        '# A title',
        '<!-- run: host -->',
        '',
        '## What is `it`?',
        '',
        '```sh',
        'one \\',
        '  two',
        '```',
        '',
      ],
      ...[
        '<!-- not run: it takes a year -->',
        '',
        '```console',
        '$ three',
        '4',
        '```',
        '',
        '```text',
        'x',
        '```',
      ],
    ].join('\n'),
  });
  const { blocks, anchors } = readPage(join('..', page, 'page.md').replace('..', relativeToRoot()));
  t.same([...anchors], ['a-title', 'what-is-it']);
  t.match(blocks, [
    { line: 6, mark: { kind: 'run', place: 'host', exact: false } },
    { line: 13, mark: { kind: 'not run', reason: 'it takes a year' } },
    { line: 18, mark: null },
  ]);
  const [first, second] = blocks;
  if (first === undefined || second === undefined) throw new Error('two blocks');
  t.same(commandsOf(first), [{ line: 7, text: 'one \\\n  two', output: null }]);
  t.same(commandsOf(second), [{ line: 14, text: 'three', output: '4' }]);
  t.end();
});

/** The way from the repository to the root of the file system. */
function relativeToRoot(): string {
  return ROOT.replaceAll(/[^/]+/g, '..').replace(/^\//, '');
}
