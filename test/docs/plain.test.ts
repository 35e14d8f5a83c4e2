/**
 * Pages and messages name their subjects: no sentence begins with a word that leaves the reader to ask who or what, and no
 * word is used for which docs/development/words.md has another. Code, tables and headings are free.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '../../..');
const WORDS = 'docs/development/words.md';
/** Shorter ones are names, formats and parts of sentences. */
const LEAST_WORDS = 4;
/** A label before an instruction. */
const LABELS = ['What to do: {}'];
/** Neither a paragraph nor a list item begins with one: its noun would be in another. */
const PRONOUNS = ['It', 'Its', 'They', 'Their', 'He', 'That', 'Those'];

function listed(heading: string): string[] {
  const [, rest = ''] = readFileSync(join(ROOT, WORDS), 'utf8').split(`## ${heading}\n`);
  const [table = ''] = rest.split('\n## ');
  return [...table.matchAll(/^\| ([^|]+) \|/gm)].map(([, cell = '']) => cell.trim()).slice(1);
}

const BEGINNINGS = listed('Sentences do not begin with');
const UNUSED = listed('Words that are not used');

/** A name such as cloud-hypervisor has none of the words in it. */
function isWordIn(word: string, text: string): boolean {
  return new RegExp(`(?<![\\w-])${word}(?![\\w-])`, 'i').test(text);
}

/** What is wrong with a paragraph, a list item or a message, in words. */
export function faults(paragraph: string): string[] {
  const sentences = paragraph.split(/(?<=[.!?:;]\)?["*]*)\s+/);
  return [
    ...PRONOUNS.filter((word) => paragraph.startsWith(`${word} `)).map((word) => `begins with ${word}`),
    ...BEGINNINGS.filter((words) => sentences.some((one) => one.startsWith(`${words} `))).map(
      (words) => `a sentence begins with ${words}`,
    ),
    ...UNUSED.filter((word) => isWordIn(word, paragraph)).map((word) => `has the word ${word}`),
  ];
}

/** Paragraphs and list items of a page, without code, tables, headings, comments and pictures. */
function paragraphs(source: string): string[] {
  return source
    .replaceAll(/<!--.*?-->/gs, '')
    .replaceAll(/^ *```.*?^ *```$/gms, '')
    .replaceAll(/^(#|\||!\[).*$/gm, '')
    .replaceAll(/^ *([-*]|\d+\.) +/gm, '\n')
    .split(/\n\s*\n/)
    .map((text) =>
      text
        .replaceAll(/`[^`]*`/g, '`code`')
        .replaceAll(/\]\([^)]*\)/g, ']')
        .replaceAll(/^[*[]+/g, '')
        .replaceAll(/\s+/g, ' ')
        .trim(),
    )
    .filter((text) => text !== '');
}

/** Strings of a source that people read: several words; what is put in at run time is braces. */
function messages(path: string): string[] {
  const file = ts.createSourceFile(path, readFileSync(join(ROOT, path), 'utf8'), ts.ScriptTarget.Latest);
  const found: string[] = [];
  file.forEachChild(function visit(node): void {
    if (ts.isStringLiteralLike(node)) found.push(node.text);
    if (ts.isTemplateExpression(node)) {
      found.push(node.head.text + node.templateSpans.map(({ literal }) => `{}${literal.text}`).join(''));
    }
    node.forEachChild(visit);
  });
  return found.filter((text) => text.trim().split(/\s+/).length >= LEAST_WORDS && !text.includes('\n'));
}

function below(folder: string, extension: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith(extension) && !path.includes('build/'))
    .map((path) => join(folder, path));
}

void t.test('the faults are found, and only those', (t) => {
  t.same(faults('What others hold is left alone.'), ['a sentence begins with What']);
  t.same(faults('The event says so. So it does of a memory.'), ['a sentence begins with So it']);
  t.same(faults('It is served again.'), ['begins with It']);
  t.same(faults('A hypervisor punches holes'), ['has the word hypervisor']);
  t.same(faults('cloud-hypervisor says what is wrong. It goes on; whatever the guest says, it waits.'), []);
  t.same(paragraphs('# What is it\n- `It` is\n  code\n\n| What |\n|---|\n```\nWho\n```\n1. One'), [
    '`code` is code',
    'One',
  ]);
  t.ok(BEGINNINGS.length > 5);
  t.ok(UNUSED.length > 5);
  t.end();
});

void t.test('each sentence of a page has its subject', (t) => {
  // The page of words names those that are not used.
  const pages = ['README.md', 'CONTRIBUTING.md', ...below('docs', '.md')].filter((path) => path !== WORDS);
  t.ok(pages.length > 15);
  for (const page of pages) {
    for (const text of paragraphs(readFileSync(join(ROOT, page), 'utf8')))
      t.same(faults(text), [], `${page}: ${text}`);
  }
  t.end();
});

void t.test('each message has its subject', (t) => {
  const sources = ['bin', 'src', 'protocol'].flatMap((folder) => below(folder, '.ts'));
  t.ok(sources.length > 100);
  for (const source of sources) {
    for (const text of messages(source).filter((one) => !LABELS.includes(one)))
      t.same(faults(text), [], `${source}: ${text}`);
  }
  t.end();
});
