// Messages name documentation that is installed: manual pages, and sections that these have.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '../..');
const UNITS = ['systemd', 'deploy/debian'];
const PAGES = ['balloond.8', 'balloonctl.1', 'balloond.toml.5'];

/** All text in strings, by file. */
function strings(): { file: string; text: string }[] {
  return ['bin', 'src', 'protocol']
    .flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map((name) =>
        join(folder, name),
      ),
    )
    .filter((name) => name.endsWith('.ts'))
    .flatMap((file) => {
      const found: { file: string; text: string }[] = [];
      const source = ts.createSourceFile(
        file,
        readFileSync(join(ROOT, file), 'utf8'),
        ts.ScriptTarget.ES2023,
      );
      ts.forEachChild(source, function visit(node): void {
        if (
          ts.isStringLiteralLike(node) ||
          ts.isTemplateHead(node) ||
          ts.isTemplateMiddleOrTemplateTail(node)
        ) {
          found.push({ file, text: node.text });
        }
        ts.forEachChild(node, visit);
      });
      return found;
    });
}

const page = (name: string): string =>
  readFileSync(join(ROOT, 'out/generated', name), 'utf8').replaceAll('\\-', '-');

void t.test('no message names a file that is not installed', (t) => {
  const all = strings();
  t.ok(all.length > 1000);
  t.same(
    all.filter(({ text }) => /\bdocs\/|\w\.md\b/.test(text)),
    [],
  );
  for (const folder of UNITS) {
    for (const name of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
      if (name.isDirectory()) continue;
      const text = readFileSync(join(ROOT, folder, name.name), 'utf8');
      t.notMatch(text.replace(/^#.*$/gm, ''), /Documentation=(?!man:)/, name.name);
    }
  }
  t.end();
});

void t.test('manual pages that are named are there, with their sections', (t) => {
  const text = strings()
    .filter(({ file }) => !file.startsWith('src/manual'))
    .map((one) => one.text)
    .join('\n');
  const named = new Set([...text.matchAll(/\b([a-z]+[a-z.]*\([158]\))/g)].map(([name]) => name));
  const known = PAGES.map((name) => name.replace(/\.(\d)$/, '($1)'));
  t.same(
    [...named].filter((name) => name.startsWith('balloon') && !known.includes(name)),
    [],
  );
  const sections = [
    ...text.matchAll(/([A-Z]+(?: [A-Z]+)*) in balloond\(8\)|balloond\(8\), ([A-Z]+(?: [A-Z]+)*)/g),
  ];
  t.ok(sections.length >= 3);
  for (const [, one, other] of sections) t.match(page('balloond.8'), `\n.SH ${one ?? other ?? ''}\n`);
  t.match(page('balloond.8'), '\n.B discard-failed (error)\n');
  t.end();
});
