/** A figure that stands in two pages is the same in both, and has a command that measures it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readFigures, withFigures, type Figure } from './figures.js';
import { ROOT } from './page.js';

const figures = readFigures();

void t.test('pages show the figures of docs/figures.json', (t) => {
  const pages = new Set(Object.values(figures).flatMap(({ shown }) => shown.map(([page]) => page)));
  for (const page of pages) {
    const source = readFileSync(join(ROOT, page), 'utf8');
    t.equal(withFigures(page, source, figures), source, `${page}: node out/test/docs/figures.js writes it`);
  }
  t.end();
});

void t.test('each stands in more than one place, and says where it is from', (t) => {
  const benchmarks = readFileSync(join(ROOT, 'scripts/bench'), 'utf8');
  for (const [name, { from, shown }] of Object.entries(figures)) {
    t.ok(shown.length > 1, name);
    const [, benchmark] = /^npm run bench -- ([\w-]+)/.exec(from) ?? [];
    t.ok(benchmark !== undefined && benchmarks.includes(`${benchmark} |`), `${name}: ${from}`);
  }
  t.end();
});

void t.test('a figure that differs, or is not found, is told', (t) => {
  const some: Record<string, Figure> = { vms: { value: '88', from: 'x', shown: [['a.md', 'holds {} VMs']] } };
  t.equal(withFigures('a.md', 'It holds\n29 VMs.', some), 'It holds\n88 VMs.');
  t.equal(withFigures('b.md', 'It holds 29 VMs.', some), 'It holds 29 VMs.');
  t.throws(() => withFigures('a.md', 'It holds none.', some), /vms: "holds {} VMs" stands 0 times in a.md/);
  t.throws(() => withFigures('a.md', 'holds 1 VMs holds 2 VMs', some), /stands 2 times/);
  t.end();
});

void t.test('what a real run said is the same in both pages that show it', (t) => {
  const page = (name: string): string => readFileSync(join(ROOT, name), 'utf8');
  const shown = /\n(\$ balloonctl policy explain [^`]*)\n```/.exec(page('README.md'))?.[1] ?? '';
  t.match(shown, /took .* from/);
  t.ok(page('docs/policy.md').includes(shown));
  t.end();
});
