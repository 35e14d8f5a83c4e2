// What messages, units, manual pages and completions name is there once balloond is installed: pages by their paths, and manual
// pages. Messages are the literals of the sources, so a new message that names a page is looked at without anybody's doing.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { ROOT } from '../support/kubernetes.js';

const SOURCES = ['bin', 'src', 'protocol'];
const folder = mkdtempSync(join(tmpdir(), 'balloond-pages-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
execFileSync('sh', [join(ROOT, 'scripts/install-system')], { env: { ...process.env, DESTDIR: folder } });
const installed = new Set(
  execFileSync('find', ['.', '-printf', '%P\n'], { cwd: folder, encoding: 'utf8' })
    .split('\n')
    .map((path) => `/${path}`),
);

/** Files of the system, which other packages bring. */
const FOREIGN =
  /^\/(?:dev|proc|run|sys|tmp|var)(?:\/|$)|^\/etc\/group$|^\/etc\/(?:apparmor\.d|systemd|tmpfiles\.d|modprobe\.d)\/|^\/(?:usr\/)?bin\/(?:sh|env)$/;
const FOREIGN_PAGES =
  /^(?:systemd|journal|sysusers|tmpfiles|file-hierarchy|man|proc|cgroups|madvise|process_madvise)/;

/** What a text names that is to be installed: paths of pages and files, and manual pages. */
function named(marked: string): string[] {
  const text = marked.replaceAll('file://', '');
  const pages = text.match(/[\w./-]*\b[\w-]+\.md\b/g) ?? [];
  const paths = text.match(/(?<![\w.{}*$-])\/(?:etc|usr)\/[\w.@/-]*[\w@]/g) ?? [];
  const manuals = [...text.matchAll(/\b([a-z][\w.-]*)`?\((\d)\)/g)].map(
    ([, name, section]) => `${name}(${section})`,
  );
  return [...new Set([...pages, ...paths, ...manuals])];
}

function isThere(name: string): boolean {
  const manual = /^(.*)\((\d)\)$/.exec(name);
  if (manual !== null) {
    const [, page = '', section = ''] = manual;
    // There is no section 0: this is a call, as in Prometheus' language.
    if (section === '0') return true;
    return FOREIGN_PAGES.test(page) || installed.has(`/usr/share/man/man${section}/${page}.${section}`);
  }
  return FOREIGN.test(name) || installed.has(name);
}

function literals(path: string): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteralLike(node) || ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node)) {
      found.push(node.text);
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true));
  return found;
}

function filesBelow(path: string): string[] {
  return readdirSync(join(ROOT, path), { recursive: true, encoding: 'utf8' }).map((file) =>
    join(ROOT, path, file),
  );
}

function missing(texts: readonly string[]): string[] {
  return [...new Set(texts.flatMap(named))].filter((name) => !isThere(name));
}

void t.test('messages name what is installed', (t) => {
  const files = SOURCES.flatMap(filesBelow).filter((path) => /(?<!\.d)\.ts$/.test(path));
  t.ok(files.length > 50);
  const texts = files.flatMap(literals);
  t.ok(
    texts.flatMap(named).filter((name) => name.endsWith(')')).length >= 8,
    'there are messages that name manual pages',
  );
  t.same(missing(texts), []);
  t.end();
});

void t.test('so do units, and Documentation= is a manual page or a file', (t) => {
  const units = filesBelow('systemd').map((path) => readFileSync(path, 'utf8'));
  t.same(missing(units), []);
  const documentation = units.flatMap((text) => /^Documentation=(.*)$/m.exec(text)?.[1]?.split(' ') ?? []);
  t.ok(documentation.length >= 4);
  for (const uri of documentation) {
    const name = uri.replace(/^man:|^file:\/\//, '');
    t.not(name, uri, uri);
    t.ok(isThere(name), uri);
  }
  t.end();
});

void t.test('so do manual pages, the catalog, completions, and what is installed beside them', (t) => {
  const texts = ['out/generated', 'deploy/prometheus', 'deploy/grafana'].flatMap(filesBelow).map((path) =>
    readFileSync(path, 'utf8')
      .replaceAll('\\-', '-')
      .replaceAll(/\\f[A-Z]/g, ''),
  );
  t.ok(texts.some((text) => text.includes('balloond(8)')));
  t.same(missing(texts), []);
  t.end();
});

void t.test('each link of an installed page leads to a file that is installed', (t) => {
  let links = 0;
  for (const page of installed) {
    if (!/^\/usr\/share\/doc\/balloond\/.*\.md$/.test(page)) continue;
    for (const [, target = ''] of readFileSync(join(folder, page), 'utf8').matchAll(
      /\]\(([^)#:\s]+)(?:#[^)]*)?\)/g,
    )) {
      links++;
      t.ok(installed.has(join(dirname(page), target)), `${page}: ${target}`);
    }
  }
  t.ok(links > 50, `${links} links`);
  t.end();
});

void t.test('all pages of docs/ are installed, and what this would find', (t) => {
  for (const page of readdirSync(join(ROOT, 'docs')))
    t.ok(installed.has(`/usr/share/doc/balloond/${page}`), page);
  t.same(missing(['see docs/limits.md', 'in /usr/lib/balloond/events.md', 'x(8)', '/etc/balloon.toml']), [
    'docs/limits.md',
    '/usr/lib/balloond/events.md',
    'x(8)',
    '/etc/balloon.toml',
  ]);
  t.same(
    missing(['balloond(8), `balloond.toml`(5)', '/usr/share/doc/balloond/limits.md', '/etc/balloond.toml']),
    [],
  );
  t.end();
});
