// Any name that a VM can have can be written on the command line, shown, and found again.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { VmView } from '../../../protocol/control/schema.js';
import { ControlClient } from '../../../src/control/client.js';
import { MemoryFleet, serveFleet, vmView } from '../../support/fleet.js';

const BALLOONCTL = fileURLToPath(new URL('../../../bin/balloonctl.js', import.meta.url));
const NAMES = [
  ...['-ram', '--json', '--', 'a b', 'ünï', '👨‍👩‍👧', '日本語', '.', '..', 'a/b', '%2F', '%', '?x=1', '#x', '-'],
  ...[`long-${'x'.repeat(1000)}`, 'two\nlines', 'tab\tand\x1b[31m', "'quoted'", 'help', 'show', '"', '\\'],
];

function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [BALLOONCTL, ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? 128), stdout, stderr });
    });
  });
}

void t.test('behind --, each name is found', async (t) => {
  const { socketPath } = await serveFleet(t, new MemoryFleet(...NAMES.map((name) => vmView(name))));
  for (const name of NAMES) {
    const { code, stdout, stderr } = await run('--control', socketPath, '--json', 'show', '--', name);
    t.equal(code, 0, `${name}: ${stderr}`);
    t.equal((JSON.parse(stdout) as VmView).name, name);
  }
  const { stdout } = await run('--control', socketPath, 'show', '--', 'tab\tand\x1b[31m');
  t.match(stdout, /^tab\?and\?\[31m {2}pid/, 'and does not drive the terminal');
});

void t.test('what looks like an option says how it is written', async (t) => {
  const cases: [string[], RegExp][] = [
    [
      ['show', '-ram'],
      /unknown option '-ram': a VM whose name .* goes behind '--', as in: balloonctl show -- -ram/,
    ],
    [['inhibit', '--backup'], /unknown option '--backup': .* balloonctl inhibit -- --backup/],
    [['show', '--json'], /show needs VM: .* balloonctl show -- --json/],
    [['top', '-x'], /unknown option '-x' \(see/],
    [['show', ''], /no VM has an empty name/],
    [['show', '--', '-a', 'b'], /too many arguments/],
  ];
  for (const [args, words] of cases) {
    const { code, stderr } = await run(...args);
    t.equal(code, 2, args.join(' '));
    t.match(stderr, words);
    t.match(stderr, /^balloonctl: [^\n]+\n$/, 'one line');
  }
});

void t.test('half of a surrogate pair is what the daemon has in its place', async (t) => {
  const { socketPath } = await serveFleet(t, new MemoryFleet(vmView('cut-\ufffd')));
  t.equal((await new ControlClient(socketPath).show('cut-\ud83d')).name, 'cut-\ufffd');
});

void t.test('--version', async (t) => {
  const { code, stdout } = await run('--version');
  t.equal(code, 0);
  t.match(stdout, /^balloonctl \d+\.\d+\.\d+\n$/);
});
