// The pages as the build leaves them, and as man shows them.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { daemonProgram } from '../../src/daemon/options.js';
import type { CommandTable } from '../../src/manual/pages.js';
import { TABLE_WORDS } from '../../src/daemon/config/words.js';
import { manualPage } from '../../src/manual/roff.js';

const run = promisify(execFile);
const OUT = join(import.meta.dirname, '../..');
const PAGES = ['balloond.8', 'balloonctl.1', 'balloond.toml.5'];

const table = run(process.execPath, [join(OUT, 'bin/balloonctl.js'), 'help', '--json']).then(
  ({ stdout }) => JSON.parse(stdout) as CommandTable,
);
const source = (page: string): string =>
  readFileSync(join(OUT, 'generated', page), 'utf8').replaceAll('\\-', '-');

void t.test('they name all commands, options and keys', async (t) => {
  const { commands, options } = await table;
  const control = source('balloonctl.1');
  for (const { name, options: own } of commands) {
    t.match(control, new RegExp(`^\\.B ${name}\\b`, 'm'));
    for (const option of Object.keys({ ...own, ...options }))
      t.match(control, new RegExp(`^\\.B (-[a-z], )?--${option}\\b`, 'm'), option);
  }
  const daemon = source('balloond.8');
  for (const { long } of daemonProgram('0').options) t.match(daemon, long ?? 'none');
  const config = source('balloond.toml.5');
  for (const key of TABLE_WORDS.flatMap(({ keys }) => Object.keys(keys)))
    t.ok(config.includes(`\n.B ${key}\n`), key);
  t.match(config, /a number from 0 to 86400/i);
  t.end();
});

void t.test('man finds nothing wrong with them', async (t) => {
  const man = await run('man', ['--version']).catch(() => null);
  if (man === null) {
    t.pass('man is not installed', { skip: true });
    return;
  }
  for (const page of PAGES) {
    const env = { ...process.env, MANWIDTH: '80', LC_ALL: 'C.UTF-8', MANPAGER: 'cat' };
    const { stdout, stderr } = await run('man', ['--warnings', '-l', join(OUT, 'generated', page)], { env });
    t.equal(stderr, '', page);
    t.match(stdout, /NAME\n +balloon\S+ - /);
    t.same(
      stdout.split('\n').filter((line) => line.length > 80),
      [],
      page,
    );
  }
});

void t.test('what roff would take for its own is text', (t) => {
  const page = manualPage('x', 1, '1', 's', [
    ['A', ".begins 'quoted' \\n `-o`", [{ term: "'t", text: '.u' }]],
  ]);
  t.match(page, "\n\\&.begins 'quoted' \\en \\fB\\-o\\fR\n.TP\n.B \\&'t\n\\&.u\n");
  t.end();
});
