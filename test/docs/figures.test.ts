// Figures that stand in several pages are those of one file, which the measurement wrote.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { PolicyCapacity } from '../../bench/policy.js';

const ROOT = join(import.meta.dirname, '../../..');
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const capacity = JSON.parse(read('bench/results/policy-capacity.json')) as PolicyCapacity;
const PAGES = [
  'README.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];
/** By what `<!-- figure NAME -->` in front of a figure says. */
const FIGURES: Readonly<Record<string, number>> = {
  'capacity balloond': capacity.seed1.balloond,
  'capacity proxmox': capacity.seed1['Proxmox-style 80 % target'],
  'capacity mom': capacity.seed1['MOM-style host-free rules'],
  'capacity static': capacity.seed1['static limits'],
};

void t.test('a figure of a page is that of the file', (t) => {
  const seen = new Map<string, string[]>();
  for (const page of PAGES) {
    for (const [, name = '', figure] of read(page).matchAll(/<!-- figure ([^>]*?) -->([\d.]*)/g)) {
      t.equal(Number(figure), FIGURES[name], `${page}: ${name}`);
      seen.set(name, [...(seen.get(name) ?? []), page]);
    }
  }
  for (const name of ['capacity balloond', 'capacity proxmox', 'capacity mom']) {
    t.ok(seen.get(name)?.includes('docs/comparison.md'), `${name} is marked in docs/comparison.md`);
  }
  t.end();
});

void t.test('the table of docs/policy.md is the one that was measured', (t) => {
  const page = read('docs/policy.md');
  for (const [policy, seed1] of Object.entries(capacity.seed1)) {
    const [mixed = '', heldOut = ''] = ['mixed', 'held-out'].map((mixture) => {
      const row = capacity.fleets.find((one) => one.mixture === mixture && one.policy === policy);
      const { counts = [] } = row ?? {};
      return `${counts[Math.floor((counts.length - 1) / 2)] ?? NaN} | ${counts[0] ?? NaN} to ${counts.at(-1) ?? NaN}`;
    });
    t.ok(
      page.includes(`| ${policy} | ${seed1} | ${mixed} | ${heldOut} |`),
      `${policy}: ${seed1} | ${mixed} | ${heldOut}`,
    );
  }
  t.end();
});

void t.test('what a real run said is the same in both pages that show it', (t) => {
  const shown = /\n(\$ balloonctl policy explain [^`]*)\n```/.exec(read('README.md'))?.[1] ?? '';
  t.match(shown, /took .* from/);
  t.ok(read('docs/policy.md').includes(shown));
  t.end();
});
