// The configuration file read again by a daemon that runs.
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { PolicyState, ReloadReport } from '../../protocol/control/schema.js';
import { Frontend } from '../support/frontend.js';
import { BIN, DaemonProcess } from '../support/daemon.js';
import { temporaryFolder } from '../support/fleet.js';
import { ANY_VMM } from '../support/vmm-orders.js';

const SOCKET = (name: string, more = ''): string => `[[socket]]\npath = "{folder}/${name}"\n${more}`;

void t.test('a change takes effect, a mistake does not', async (t) => {
  const daemon = await DaemonProcess.start({ config: SOCKET('a.sock') + SOCKET('b.sock') });
  t.teardown(() => daemon.stop());
  const at = (name: string): string => join(daemon.folder, name);
  const write = (text: string): void =>
    writeFileSync(at('balloond.toml'), text.replaceAll('{folder}', daemon.folder));
  const vm = new Frontend({ socket: at('b.sock'), order: ANY_VMM });
  await vm.connect();
  t.teardown(() => vm.close());

  t.match((await daemon.ctl('reload')).stdout, /balloond\.toml: nothing changed\n$/);

  write(`control = "/elsewhere"\nlog-level = "debug"
${SOCKET('a.sock', 'name = "web"\n')}${SOCKET('c.sock')}[[vm]]\nmatch = "*"\nmin = "30%"
[policy]\nmode = "off"\nreserve = "7%"\n`);
  const report = JSON.parse(await daemon.ok('reload', '--json')) as ReloadReport;
  t.same(report.changes, [
    { key: 'vm', effect: 'next-connection' },
    { key: 'vm min, max, weight and size', effect: 'now' },
    { key: 'policy', effect: 'now' },
    { key: 'policy mode, interval, record and record-max', effect: 'restart' },
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
  const named = new Frontend({ socket: at('a.sock'), order: ANY_VMM });
  await named.connect();
  t.teardown(() => named.close());
  t.ok((await daemon.list()).some(({ name }) => name === 'web'));
  for (const { name } of await daemon.list()) await daemon.ok('set', name, '--memory', '1G');
  write(`${SOCKET('a.sock')}[[vm]]\nmatch = "w*"\ntarget = "70%"\n`);
  const held =
    /^web: an operator's order goes before its target .*keeps 1 GiB.*: balloonctl policy resume web takes it back$/m;
  const lines = (await daemon.ok('reload')).split('\n').filter((line) => line.includes("operator's"));
  t.match(lines, [held]);
  t.equal(lines.length, 1, 'no VM that [[vm]] does not match');
  await daemon.ok('policy', 'resume', 'web');
  write(`${SOCKET('a.sock')}${SOCKET('c.sock')}[[vm]]\nmatch = "*"\ntarget = "60%"\n`);
  t.notMatch(await daemon.ok('reload'), held);

  const bad = [
    ['log-level = "info"\nlog-level', /balloond\.toml:2:\d+: /],
    [
      `${SOCKET('a.sock')}stats-interval = -1`,
      /balloond\.toml:3:1: socket\.0\.stats-interval must be 0 or a number from 0\.1/,
    ],
    [SOCKET('d.sock') + SOCKET('none/e.sock'), /create its folder first/],
    [
      'loglevel = 1\nmode = 2\n',
      /did you mean log-level\?; there is 1 more mistake, see balloond --check-config/,
    ],
    ['', /nothing to serve/],
  ] as const;
  for (const [text, why] of bad) {
    write(text);
    const { code, stderr } = await daemon.ctl('reload');
    t.equal(code, 1);
    t.match(stderr, why);
    t.match(
      stderr,
      /; the daemon keeps its present configuration: mend the cause and run balloonctl reload again\n$/,
    );
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
    'config-reloaded',
    'config-reloaded',
    ...bad.map(() => 'config-refused'),
    'config-reloaded',
  ]);
});

/** Runs the shell script where /etc is empty, so that the default file is what the script makes it. */
function withEmptyEtc(script: string, folder: string): string {
  const wrapped = `mount -t tmpfs tmpfs /etc && cd "$1" && ${script}`;
  return execFileSync('unshare', ['--mount', 'sh', '-ec', wrapped, 'sh', folder], {
    encoding: 'utf8',
    timeout: 120_000,
    env: { PATH: process.env['PATH'] },
  });
}

const BALLOOND = `${process.execPath} ${join(BIN, 'balloond.js')}`;
const BALLOONCTL = `${process.execPath} ${join(BIN, 'balloonctl.js')} --control $PWD/c`;

void t.test('the default file is read where it exists, and its folder in any case', (t) => {
  const folder = temporaryFolder(t);
  const said = withEmptyEtc(
    `${BALLOOND} --check-config --control c
    ${BALLOOND} --control c --socket-path a >log 2>&1 &
    daemon=$!
    trap 'kill $daemon 2>/dev/null || :' EXIT
    until grep -q daemon-started log; do sleep 0.1; done
    ${BALLOONCTL} reload 2>&1 || echo refused
    mkdir /etc/balloond.toml.d
    echo 'log-level = "debug"' >/etc/balloond.toml.d/a.toml
    ${BALLOONCTL} --json reload
    printf '[[socket]]\npath = "%s/not-wanted"\n' "$PWD" >/etc/balloond.toml
    ${BALLOOND} --check-config --control x
    kill -HUP $daemon
    until [ "$(grep -c config-reloaded log)" = 2 ]; do sleep 0.1; done
    kill $daemon
    wait $daemon
    ls -d not-wanted 2>/dev/null || echo none`,
    folder,
  );
  t.match(said, /^\/etc\/balloond\.toml: there is no such file, so that all settings have their defaults\n/);
  t.match(said, /no configuration file to read again: create \/etc\/balloond\.toml, or start .*\nrefused\n/);
  t.match(said, '"files":["/etc/balloond.toml.d/a.toml"]');
  t.match(said, '{"key":"log-level","effect":"now"}');
  t.match(said, '/etc/balloond.toml: nothing wrong\n/etc/balloond.toml.d/a.toml: nothing wrong\n');
  t.match(said, /none\n$/, '--socket-path replaces the sockets of the file');
  t.end();
});
