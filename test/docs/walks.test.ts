/** The walks of docs/development/architecture.md name a function and its file at each step, and both are there. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { ROOT } from './page.js';

const PAGE = readFileSync(join(ROOT, 'docs/development/architecture.md'), 'utf8');
const WALKS = [
  'From a kick to a discard',
  'From an order to the guest',
  'From SIGKILL to served again',
  'From pressure to a cgroup write',
  "From a guest's statistics to the size of its VM",
];
/** A name and its file, as a walk has them. */
const PLACE = /`([\w.]+)` in `([\w./-]+)`/g;

/** The steps of a walk: the cells of its table. */
function steps(title: string): { what: string; where: string }[] {
  const [, section = ''] = PAGE.split(`\n## ${title}\n`);
  const [text = ''] = section.split('\n## ');
  return [...text.matchAll(/^\| (.+?) \| (.+) \|$/gm)]
    .map(([, what = '', where = '']) => ({ what, where }))
    .filter(({ what }) => what !== 'step' && !what.startsWith('---'));
}

/** All names that a source declares: `f`, `Class`, `Class.method`. */
function declared(path: string): Set<string> {
  const source = readFileSync(join(ROOT, path), 'utf8');
  if (path.endsWith('.c'))
    return new Set([...source.matchAll(/^\w[^;={}]*?\b(\w+)\(/gm)].map(([, name = '']) => name));
  const names = new Set<string>();
  for (const statement of ts.createSourceFile(path, source, ts.ScriptTarget.ES2023).statements) {
    if (ts.isFunctionDeclaration(statement) && statement.name !== undefined) names.add(statement.name.text);
    if (ts.isVariableStatement(statement))
      for (const { name } of statement.declarationList.declarations)
        if (ts.isIdentifier(name)) names.add(name.text);
    if (!ts.isClassDeclaration(statement) || statement.name === undefined) continue;
    names.add(statement.name.text);
    for (const { name } of statement.members)
      if (name !== undefined && ts.isIdentifier(name)) names.add(`${statement.name.text}.${name.text}`);
  }
  return names;
}

void t.test('each step of a walk names a function that is in the file that it names', (t) => {
  for (const title of WALKS) {
    const walk = steps(title);
    t.ok(walk.length >= 8, `${title}: ${walk.length} steps`);
    for (const { what, where } of walk) {
      const places = [...where.matchAll(PLACE)];
      t.equal(
        where.replaceAll(PLACE, '').replaceAll(', ', ''),
        '',
        `${what}: nothing but names with their files`,
      );
      t.not(places.length, 0, what);
      for (const [, name = '', file = ''] of places)
        t.ok(existsSync(join(ROOT, file)) && declared(file).has(name), `${name} in ${file}`);
    }
  }
  t.end();
});

void t.test('names in sources are told from others', (t) => {
  const own = declared('test/docs/walks.test.ts');
  t.ok(own.has('declared') && own.has('PLACE') && !own.has('own'));
  t.ok(declared('src/vm/vm.ts').has('Vm.setTarget') && !declared('src/vm/vm.ts').has('Vm.nothing'));
  t.ok(
    declared('src/native/discard.c').has('bd_discard') && !declared('src/native/discard.c').has('nothing'),
  );
  t.end();
});
