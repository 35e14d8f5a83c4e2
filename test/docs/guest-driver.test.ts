/** docs/guest-driver.md against the sources of the driver: its parameters, what debugfs shows, and the packages that carry it. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT } from './page.js';

const DRIVER = 'guest/virtio_balloon';
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const page = read('docs/guest-driver.md');
const sources = readdirSync(join(ROOT, DRIVER))
  .filter((name) => name.endsWith('.c') || name.endsWith('.h'))
  .map((name) => read(join(DRIVER, name)))
  .join('\n');

/** Cells of the rows of the table under a heading. */
function table(heading: string): string[][] {
  const [, after = ''] = page.split(`\n${heading}\n`);
  const [rows = ''] = /^\|(?:.*\n)*?(?=\n)/m.exec(after) ?? [];
  return rows
    .split('\n')
    .slice(2)
    .filter((row) => row !== '')
    .map((row) =>
      row
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

const literals = (text: string): string[] =>
  [...text.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word = '']) => word);
const sorted = (words: Iterable<string>): string[] => [...new Set(words)].sort();

interface Parameter {
  readonly name: string;
  readonly type: string;
  readonly value: string;
}

/** Of the sources: each `module_param`, with the value that its variable begins with. */
function parameters(): Parameter[] {
  return [...sources.matchAll(/^module_param\((\w+), (\w+), 0644\);$/gm)].map(([, name = '', type = '']) => {
    const [, value = ''] = new RegExp(`^static [\\w ]+ ${name} = (\\w+);$`, 'm').exec(sources) ?? [];
    return { name, type, value };
  });
}

void t.test('all parameters of the module are in the page, with their defaults', (t) => {
  const known = parameters();
  t.equal(known.length, sources.match(/\bmodule_param\w*\(/g)?.length, 'no parameter is of another form');
  t.ok(known.length > 5);
  const rows = table('### Parameters of the module').map(([name, value, unit]) => ({ name, value, unit }));
  t.same(
    rows.map(({ name, value }) => [name, value]),
    known.map(({ name, type, value }) => [
      `\`${name}\``,
      type === 'bool' ? (value === 'true' ? '1' : '0') : value,
    ]),
  );
  for (const { name, unit } of rows) {
    const [, ending] = /_(ms|mib)`$/.exec(name ?? '') ?? [];
    t.equal(unit, { ms: 'ms', mib: 'MiB' }[ending ?? ''] ?? unit, `${name}`);
  }
  t.end();
});

void t.test('the example for modprobe.d names each parameter with its default', (t) => {
  const [, given = ''] = /^options virtio_balloon (.*)$/m.exec(read('guest/modprobe.conf')) ?? [];
  t.same(
    given.split(' '),
    parameters().map(
      ({ name, type, value }) => `${name}=${type === 'bool' ? Number(value === 'true') : value}`,
    ),
  );
  t.end();
});

/** The names of the lines that `view_show` and `cache_balloon_show` print. */
function lines(): string[] {
  const shown = (call: string): string[] =>
    [...sources.matchAll(new RegExp(`\\b${call}\\(file, "([^"%]+)`, 'g'))].map(([, name = '']) => name);
  return [
    ...shown('show_pages'),
    ...shown('show_standing'),
    ...[...shown('show_standing'), ...shown('show_wait')].map((name) => `${name} waits for the host`),
    ...shown('seq_printf').map((format) => format.replace(/:.*/, '')),
  ];
}

void t.test('all lines that debugfs shows are in the page', (t) => {
  const known = sorted(lines());
  t.ok(
    known.includes('cache insisted on') && known.includes('reporting waits for the host'),
    known.join(', '),
  );
  const rows = table('### Lines').map(([name = '']) => name.replaceAll('`', ''));
  t.equal(new Set(rows).size, rows.length);
  t.same(sorted(rows), known);
  t.end();
});

/** The words that `stands` is given, and those that stand for a balloon that is stuck. */
function words(): string[] {
  const calls = sources.match(/\bstands\(&\w+->standing,[^;]*;|\bchar \*stuck =[^;]*;/g) ?? [];
  return sorted(calls.flatMap(literals));
}

void t.test('all that a balloon may do is in the page', (t) => {
  const known = words();
  t.ok(known.includes('has reached its target') && known.includes('memory goes offline'), known.join(', '));
  const rows = table('### What a balloon does').flatMap(([said = '']) =>
    [...said.matchAll(/`([^`]+)`/g)].map(([, one = '']) => one),
  );
  t.same(sorted(rows), known);
  t.end();
});

void t.test('the driver has the version of balloond', (t) => {
  const { version } = JSON.parse(read('package.json')) as { version: string };
  t.match(read(join(DRIVER, 'dkms.conf')), `\nPACKAGE_VERSION="${version}"\n`);
  t.match(page, `./virtio-balloon-dkms_${version}_all.deb`);
  t.end();
});
