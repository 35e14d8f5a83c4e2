// The configuration file read again by a daemon that runs.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { PolicyState, ReloadReport } from '../../protocol/control/schema.js';
import { Frontend } from '../support/frontend.js';
import { DaemonProcess } from '../support/daemon.js';

const SOCKET = (name: string, more = ''): string => `[[socket]]\npath = "{folder}/${name}"\n${more}`;

void t.test('a change takes effect, a mistake does not', async (t) => {
  const daemon = await DaemonProcess.start({ config: SOCKET('a.sock') + SOCKET('b.sock') });
  t.teardown(() => daemon.stop());
  const at = (name: string): string => join(daemon.folder, name);
  const write = (text: string): void =>
    writeFileSync(at('balloond.toml'), text.replaceAll('{folder}', daemon.folder));
  const vm = new Frontend({ socket: at('b.sock') });
  await vm.connect();
  t.teardown(() => vm.close());

  t.match((await daemon.ctl('reload')).stdout, /balloond\.toml: nothing changed\n$/);

  write(`control = "/elsewhere"\nlog-level = "debug"
${SOCKET('a.sock', 'name = "web"\n')}${SOCKET('c.sock')}[[vm]]\nmatch = "*"\nmin = "30%"
[policy]\nmode = "off"\nreserve = "7%"\n`);
  const report = JSON.parse(await daemon.ok('reload', '--json')) as ReloadReport;
  t.same(report.changes, [
    { key: 'vm', effect: 'next-connection' },
    { key: 'vm min, max and weight', effect: 'now' },
    { key: 'policy', effect: 'now' },
    { key: 'policy mode, interval and record', effect: 'restart' },
    { key: `socket ${at('a.sock')}`, effect: 'next-connection' },
    { key: `socket ${at('b.sock')}`, effect: 'now' },
    { key: `socket ${at('c.sock')}`, effect: 'now' },
  ]);
  const policy = JSON.parse(await daemon.ok('policy', 'show', '--json')) as PolicyState;
  t.equal(policy.mode, 'observe', 'as it was started');
  t.ok(Math.abs(policy.reserveBytes / (policy.host?.totalBytes ?? 0) - 0.07) < 1e-3, 'a new reserve');
  t.same(
    ['a.sock', 'b.sock', 'c.sock'].map((name) => existsSync(at(name))),
    [true, false, true],
  );
  t.equal((await daemon.list()).length, 1, 'a VM whose socket went goes on');
  const named = new Frontend({ socket: at('a.sock') });
  await named.connect();
  t.teardown(() => named.close());
  t.ok((await daemon.list()).some(({ name }) => name === 'web'));

  const bad = [
    ['log-level = "info"\nlog-level', /balloond\.toml:2:\d+: /],
    [`${SOCKET('a.sock')}stats-interval = -1`, /balloond\.toml:3:1: socket\.0\.stats-interval must be >= 0/],
    [SOCKET('d.sock') + SOCKET('none/e.sock'), /create its folder first/],
    ['', /nothing to serve/],
  ] as const;
  for (const [text, why] of bad) {
    write(text);
    const { code, stderr } = await daemon.ctl('reload');
    t.equal(code, 1);
    t.match(stderr, why);
    t.match(stderr, /all stays as it was\n$/);
  }
  t.same(
    ['a.sock', 'c.sock', 'd.sock'].map((name) => existsSync(at(name))),
    [true, true, false],
    'nothing changed',
  );

  write(SOCKET('a.sock'));
  daemon.child.kill('SIGHUP');
  while (existsSync(at('c.sock'))) await new Promise((resolve) => setTimeout(resolve, 5));
  const events = (await daemon.events())
    .map(({ event }) => event)
    .filter((name) => name.startsWith('config-'));
  t.same(events, [
    'config-reloaded',
    'config-reloaded',
    ...bad.map(() => 'config-refused'),
    'config-reloaded',
  ]);
});

void t.test('without a file there is nothing to read', async (t) => {
  const daemon = await DaemonProcess.start();
  t.teardown(() => daemon.stop());
  const { code, stderr } = await daemon.ctl('reload');
  t.equal(code, 1);
  t.match(stderr, /start balloond with --config FILE/);
  daemon.child.kill('SIGHUP');
  t.same(await daemon.list(), [], 'and a hang-up does not end it');
});
