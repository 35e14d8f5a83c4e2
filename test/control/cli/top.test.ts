// `balloonctl top` in a real terminal (tmux), which judges by itself how wide a name is and where a line ends.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { MemoryFleet, serveFleet, vmView, type ControlFixture } from '../../support/fleet.js';
import { Tmux } from '../../support/tmux.js';

const BALLOONCTL = fileURLToPath(new URL('../../../bin/balloonctl.js', import.meta.url));
/** From others: none of them may move a column. */
const NAMES = [
  'plain',
  'ünï',
  'e\u0301combining\u0301',
  '日本語のサーバー',
  '한국어',
  'emoji-🎉-🚀',
  'family-👨‍👩‍👧‍👦-x',
  'flag-🇩🇪-x',
  'thumb-👍🏽-x',
  'heart-❤️-x',
  'two\nlines',
  'bell\x07tab\tescape\x1b[31mred',
  'rtl-\u202e-override',
  'separator-\u2028-x',
  'half-\ud83d-x',
  'zero\u200bwidth',
  '-ram',
  '--json',
  'a b',
  '..',
  'a/b',
  '%2F',
  `long-${'x'.repeat(300)}-end`,
];

async function startTop(
  t: Test,
  fleet: MemoryFleet,
  { columns = 80, rows = 24 } = {},
): Promise<{ tmux: Tmux; served: ControlFixture }> {
  const served = await serveFleet(t, fleet);
  const command = `"${process.execPath}" "${BALLOONCTL}" top --control "${served.socketPath}"`;
  const tmux = await Tmux.start(command, columns, rows);
  t.teardown(() => tmux.close());
  await tmux.until(/ by name /);
  return { tmux, served };
}

/** The pid of balloonctl in the terminal. */
async function pidIn(tmux: Tmux): Promise<number> {
  const shell = await tmux.pid();
  const children = readFileSync(`/proc/${shell}/task/${shell}/children`, 'utf8').trim().split(' ');
  return Number(children[0]);
}

/** The terminal is as before: its own screen, with a cursor, and what is typed shows. */
async function assertBack(t: Test, tmux: Tmux, code: number): Promise<string[]> {
  const screen = await tmux.until(/ended \d+[^]* -?echo /);
  t.match(screen.join('\n'), `ended ${code}\n`);
  t.match(screen.join(' '), / icanon .* echo /s);
  t.notMatch(screen.join(' '), / -icanon | -echo /);
  t.same(await tmux.modes(), { alternate: false, cursor: true, wraps: true });
  return screen;
}

void t.test('names from others move no column, whatever the terminal takes them for', async (t) => {
  const fleet = new MemoryFleet(...NAMES.map((name) => vmView(name)));
  const { tmux } = await startTop(t, fleet, { columns: 100, rows: 40 });
  const screen = await tmux.until(
    (lines) => lines.filter((line) => / running /.test(line)).length === NAMES.length,
  );
  const table = screen.slice(2, 3 + NAMES.length);
  const painted = (await tmux.painted()).split('\n');
  t.equal(screen.length, 40, 'the help line is the last of the screen');
  t.match(screen.at(-1), /q quit/);
  t.notMatch(painted.join('\n'), '\x1b[31mred', 'nothing is painted by a name');
  const ends = table.slice(1).map((line) => /running +4 GiB +4 GiB +0 B +3 GiB +\S+$/.exec(line)?.[0]);
  for (const [n, end] of ends.entries()) t.ok(end, table[n + 1] ?? '');
  const rest = new Set(ends.map((end) => end?.replace(/█+$/, '')));
  t.equal(rest.size, 1, [...rest].join('\n'));
  await tmux.press('End', 'Enter');
  t.match(await tmux.until(/Esc or q goes back/), [/^日本語のサーバー {2}pid 4242|^한국어 {2}pid/]);
});

void t.test(
  '30 names that differ at their ends alone are told apart, in the order people expect',
  async (t) => {
    const names = Array.from({ length: 30 }, (_, n) => `prod-eu-west-1-app-server-${n + 1}`);
    const { tmux } = await startTop(t, new MemoryFleet(...names.map((name) => vmView(name))), { rows: 40 });
    const at80 = (await tmux.until(/server-30/)).filter((line) => line.startsWith('prod'));
    t.equal(new Set(at80.map((line) => line.split(' ')[0])).size, 30);
    t.same(
      at80.map((line) => /(\d+) /.exec(line)?.[1]),
      names.map((_, n) => String(n + 1)),
    );
    await tmux.resize(64, 40);
    const at64 = (await tmux.until(/…\S*-30 /)).filter((line) => line.startsWith('prod'));
    t.match(at64[29] ?? '', /^prod\S+…\S+-30 +running/, 'the ellipsis is in the middle');
    t.equal(new Set(at64.map((line) => line.split(' ')[0])).size, 30);
    await tmux.resize(120, 40);
    const wide = await tmux.until(/prod-eu-west-1-app-server-30 /);
    t.match(wide[3], /^prod-eu-west-1-app-server-1 +running/, 'a wide terminal has room for all of it');
    await tmux.resize(40, 10);
    const narrow = await tmux.until(/^1-6 of 30 by name/m);
    t.equal(narrow.length, 10, 'and a small one for as many as fit');
  },
);

void t.test('keys: scrolling, a filter, a VM by itself', async (t) => {
  const names = Array.from({ length: 100 }, (_, n) => `vm-${n + 1}`);
  const fleet = new MemoryFleet(...names.map((name) => vmView(name)));
  const { tmux } = await startTop(t, fleet);
  const selected = async (): Promise<string | undefined> =>
    /\x1b\[(?:\d+;)*7m(?:\x1b\[[\d;]*m)*([^\s\x1b]+)/.exec(await tmux.painted())?.[1];
  const selects = async (name: string): Promise<void> => {
    for (let n = 0; (await selected()) !== name; n++) {
      if (n > 200) throw new Error(`never ${name}, but ${(await selected()) ?? 'none'}`);
    }
  };
  await tmux.press('Down');
  await selects('vm-1');
  await tmux.press('j', 'j', 'Down', 'k', 'Up', 'Down');
  await selects('vm-3');
  await tmux.press('End');
  t.match((await tmux.until(/-100 of 100/)).join('\n'), /^vm-100 /m);
  await selects('vm-100');
  await tmux.press('PageUp');
  await selects('vm-80');
  await tmux.press('Home', 'PageDown');
  await selects('vm-21');
  await tmux.press('G', 'g');
  await selects('vm-1');

  await tmux.press('/');
  await tmux.type('M-9q');
  await tmux.press('BSpace');
  t.match((await tmux.until(/\/M-9_/)).join('\n'), /vm-9 [^]*vm-99 /);
  await tmux.press('Enter');
  const filtered = await tmux.until(/of 11 with "M-9"/);
  t.equal(filtered.filter((line) => line.startsWith('vm-')).length, 11);
  await tmux.press('Escape');
  await tmux.until(/of 100 by name/);
  await tmux.press('/');
  await tmux.type('7');
  await tmux.press('Escape');
  await tmux.until(/of 100 by name/);

  await tmux.press('Home', 'j', 'j');
  await selects('vm-3');
  fleet.inflate('vm-50', 2 ** 30);
  fleet.inflate('vm-3', 2 ** 29);
  await tmux.press('b');
  await tmux.until(/^VM .*\nvm-50 .*\nvm-3 [^]* by balloon /m);
  await selects('vm-3');
  fleet.remove('vm-3');
  await tmux.until((lines) => !lines.some((line) => line.startsWith('vm-3 ')));
  await selects('vm-1');
  await tmux.press('Enter');
  const shown = await tmux.until(/^vm-1 {2}pid 4242 {2}running/);
  t.match(shown.join('\n'), /\nBalloon +0 B of target 0 B: reached[^]*Esc or q goes back$/);
  await tmux.press('Escape');
  await tmux.until(/by balloon/);
  await tmux.press('Enter');
  await tmux.until(/^vm-1 {2}pid/);
  fleet.remove('vm-1');
  await tmux.until(/^vm-1 is gone/);
  await tmux.press('q');
  await tmux.until(/by balloon/);
  await tmux.press('q');
  await assertBack(t, tmux, 0);
});

void t.test('a row says what is inhibited, paused by hand and forced', async (t) => {
  const policy = { band: 'gold', minBytes: 0, maxBytes: 1, mode: 'manual' } as const;
  const fleet = new MemoryFleet(
    vmView('calm'),
    vmView('held', { inhibited: 'backup', policy }),
    vmView('pushed', { verdict: 'out of puff: set a smaller balloon' }),
  );
  const forced = {
    ...{ name: 'pushed', band: 'gold', minBytes: 0, maxBytes: 1, mode: 'auto' as const, weight: 1 },
    ...{ force: 'high' as const, said: null, saidAt: null, now: 'x' },
  };
  fleet.policyState = { ...fleet.policyState, vms: [forced] };
  const { tmux } = await startTop(t, fleet);
  const screen = (await tmux.until(/forced/)).join('\n');
  t.match(screen, /^VM +STATE +MARK +RAM /m);
  t.match(screen, /^calm +running +4 GiB/m);
  t.match(screen, /^held +running +IP +4 GiB/m);
  t.match(screen, /^pushed +! running +F +4 GiB/m);
  t.match(screen, /^! pushed: out of puff/m);
  t.match(screen, /^I inhibited, P the policy leaves it alone, F forced$/m);
});

void t.test('the terminal is put back, however it ends', async (t) => {
  const ends: [string, number, (tmux: Tmux, served: ControlFixture) => Promise<void>][] = [
    ['q', 0, (tmux) => tmux.press('q')],
    ['Ctrl-C', 0, (tmux) => tmux.press('C-c')],
    ['SIGTERM', 0, async (tmux) => void process.kill(await pidIn(tmux), 'SIGTERM')],
    ['SIGINT', 0, async (tmux) => void process.kill(await pidIn(tmux), 'SIGINT')],
    ['SIGHUP', 0, async (tmux) => void process.kill(await pidIn(tmux), 'SIGHUP')],
    [
      'a daemon that goes, and q',
      0,
      async (tmux, { close }) => {
        await close();
        t.match((await tmux.until(/trying again/)).join('\n'), /web1 +running/);
        await tmux.press('q');
      },
    ],
    [
      'a daemon that fails',
      1,
      async (_, { fleet }) => {
        fleet.list = () => {
          throw new Error('broken');
        };
        await Promise.resolve();
      },
    ],
  ];
  for (const [what, code, end] of ends) {
    await t.test(what, async (t) => {
      const { tmux, served } = await startTop(t, new MemoryFleet(vmView('web1')));
      t.same(await tmux.modes(), { alternate: true, cursor: false, wraps: false });
      await end(tmux, served);
      const screen = await assertBack(t, tmux, code);
      if (code > 0) t.match(screen.join('\n'), /balloonctl: the daemon failed on this request/);
    });
  }
});

void t.test('an exception while a key is handled is told when the terminal is back', async (t) => {
  // Of a daemon that is none: a VM without what every VM has.
  const fleet = new MemoryFleet(vmView('web1'));
  const { tmux } = await startTop(t, fleet);
  fleet.remove('web1');
  fleet.put(
    JSON.parse(
      '{"name":"web1","ramBytes":1,"balloon":{},"cache":null,"verdict":null,"inhibited":null}',
    ) as never,
  );
  await tmux.press('Down', 'Enter');
  const screen = await assertBack(t, tmux, 1);
  t.match(screen.join('\n'), /balloonctl: /);
});

void t.test('Ctrl-Z gives the terminal to the shell for a while', async (t) => {
  const served = await serveFleet(t, new MemoryFleet(vmView('web1')));
  const top = `"${process.execPath}" "${BALLOONCTL}" top --control "${served.socketPath}"`;
  const tmux = await Tmux.start(`bash -c 'set -m; ${top}; echo stopped; read -r line; fg'`);
  t.teardown(() => tmux.close());
  await tmux.until(/ by name /);
  await tmux.press('C-z');
  await tmux.until(/^stopped$/m);
  t.same(await tmux.modes(), { alternate: false, cursor: true, wraps: true });
  await tmux.press('Enter');
  await tmux.until(/ by name /);
  t.same(await tmux.modes(), { alternate: true, cursor: false, wraps: false });
  await tmux.press('q');
  await assertBack(t, tmux, 0);
});

void t.test('Ctrl-Z changes nothing where no shell could continue it', async (t) => {
  const { tmux } = await startTop(t, new MemoryFleet(vmView('web1')));
  await tmux.press('C-z', 'Down', '/');
  await tmux.type('w');
  await tmux.until(/^web1 [^]*\n\/w_/m);
  await tmux.press('Enter', 'q');
  await assertBack(t, tmux, 0);
});
