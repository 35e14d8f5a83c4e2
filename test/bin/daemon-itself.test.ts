// What balloond says of itself: its version, who holds its VMs, how much it logs, and how often it asks guests.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DaemonView, ReloadReport, VmView } from '../../protocol/control/schema.js';
import type { Finding } from '../../src/control/cli/finding.js';
import { DaemonProcess } from '../support/daemon.js';
import { OWN_VERSION } from '../support/fleet.js';
import { BalloonDriver, LINUX_FEATURES } from '../support/balloon-driver.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { ANY_VMM } from '../support/vmm-orders.js';

async function connect(t: Test, socket: string): Promise<BalloonDriver> {
  const ram = new GuestRam([{ gpa: 0, lenBytes: 64 * 2 ** 20 }]);
  const frontend = new Frontend({ socket, ram, order: ANY_VMM });
  await frontend.connect();
  t.teardown(() => frontend.close());
  return BalloonDriver.start(frontend, { features: LINUX_FEATURES });
}

void t.test('a daemon that nobody holds says so wherever somebody looks', async (t) => {
  const daemon = await DaemonProcess.start();
  t.teardown(() => daemon.stop());
  await connect(t, daemon.socketPath);
  const [first] = (await daemon.events()).filter(({ event }) => event === 'not-held');
  t.match(first, { level: 'warn', message: /must not end while VMs run.*: start it with --supervise/ });
  t.match(await daemon.ok('list'), /\nnobody holds the VMs of this daemon, .*--supervise/);
  const { stdout, stderr } = await daemon.ctl('list', '--json');
  t.equal((JSON.parse(stdout) as VmView[]).length, 1);
  t.match(stderr, /^balloonctl: note: nobody holds the VMs .*\n$/);
  t.match(await daemon.ok('show', `pid-${process.pid}`), /\nnobody holds the VMs/);
  const { stdout: findings } = await daemon.ctl('doctor', '--json');
  const of = (check: string): Finding | undefined =>
    (JSON.parse(findings) as Finding[]).find((one) => one.subject === 'daemon' && one.check === check);
  t.match(of('holder'), { level: 'mend', mend: /--supervise/ });
  t.match(of('version'), { level: 'ok', found: OWN_VERSION });
  const before = daemon.log.length;
  await daemon.stop();
  t.match(daemon.log.slice(before), /SIGTERM; 1 VM .*must not be rebooted/);
});

void t.test('under a keeper, it and reload say that the keeper holds them', async (t) => {
  const config = '[[socket]]\npath = "{folder}/vhost.sock"\n';
  const daemon = await DaemonProcess.start({ supervise: true, config });
  t.teardown(() => daemon.stop());
  await connect(t, daemon.socketPath);
  t.notMatch(daemon.log, 'not-held');
  t.notMatch(await daemon.ok('list'), 'holds');
  writeFileSync(
    join(daemon.folder, 'balloond.toml'),
    `metrics = "127.0.0.1:0"\n${config}`.replace('{folder}', daemon.folder),
  );
  const pid = daemon.pid;
  t.equal(
    await daemon.ok('reload'),
    `metrics: when the daemon restarts: kill ${pid}; the keeper holds the VMs meanwhile and starts the next daemon\n`,
  );
  await daemon.crash('SIGTERM');
  t.match(daemon.log, /SIGTERM; the keeper holds 1 VM for the next daemon/);
  t.equal((await daemon.list()).length, 1, 'and so it was');
  t.not(daemon.pid, pid);
  await daemon.stop();
  t.match(daemon.log, /SIGTERM; the keeper ends, too, and 1 VM .*must not be rebooted/);
});

void t.test('the log level is changed until the configuration is read again', async (t) => {
  const config = '[[socket]]\npath = "{folder}/vhost.sock"\n';
  const daemon = await DaemonProcess.start({ config });
  t.teardown(() => daemon.stop());
  t.equal(await daemon.ok('log-level'), 'the log level is info\n');
  t.match(
    await daemon.ok('log-level', 'debug'),
    /^the log level is debug until the daemon restarts or reads/,
  );
  t.match(JSON.parse(await daemon.ok('log-level', '--json')) as DaemonView, {
    ...{ version: OWN_VERSION, pid: daemon.child.pid, holder: null, heldOver: 'nothing', logLevel: 'debug' },
    configFiles: [join(daemon.folder, 'balloond.toml')],
    control: daemon.controlPath,
  });
  t.match(daemon.log, /"log-level-changed"/);
  await daemon.ctl('show', 'nobody');
  t.match(daemon.log, /"control-request-refused"/, 'which is logged at debug');
  await daemon.ok('reload');
  t.equal(await daemon.ok('log-level'), 'the log level is info\n');
  t.equal((await daemon.ctl('log-level', 'loud')).code, 2);
});

void t.test('statistics of a VM that runs are asked for as often as was said last', async (t) => {
  const socket = '[[socket]]\npath = "{folder}/vhost.sock"\nname = "web"\n';
  const daemon = await DaemonProcess.start({ config: `${socket}stats-interval = 0\n` });
  t.teardown(() => daemon.stop());
  const driver = await connect(t, daemon.socketPath);
  t.equal((await daemon.show('web')).statsIntervalSeconds, 0);
  t.match(
    await daemon.ok('stats', 'web', '--interval', '0.1'),
    /^web: statistics are asked for every 0\.1 s until/,
  );
  await driver.waitStatsRequests(driver.statsRequests + 3);
  t.equal((await daemon.show('web')).statsIntervalSeconds, 0.1);
  t.match(await daemon.ok('stats', 'web', '--interval', '0'), /not asked for/);
  const write = (text: string): void =>
    writeFileSync(join(daemon.folder, 'balloond.toml'), text.replaceAll('{folder}', daemon.folder));
  write(`${socket}stats-interval = 0.2\n`);
  const report = JSON.parse(await daemon.ok('reload', '--json')) as ReloadReport;
  t.same(report.changes, [{ key: `socket ${daemon.socketPath} stats-interval`, effect: 'now' }]);
  t.equal((await daemon.show('web')).statsIntervalSeconds, 0.2);
  await driver.waitStatsRequests(driver.statsRequests + 2);
  write(`${socket}stats-interval = 0.2\n[[vm]]\nmatch = "web"\nstats-interval = 0.3\n`);
  t.match(await daemon.ok('reload'), /vm stats-interval: in effect now/);
  t.equal((await daemon.show('web')).statsIntervalSeconds, 0.3);
  const changes = (await daemon.events()).filter(({ event }) => event === 'stats-interval-changed');
  t.same(
    changes.map(({ vm, fields }) => [vm, fields['seconds']]),
    [0.1, 0, 0.2, 0.3].map((seconds) => ['web', seconds]),
  );
  for (const wrong of ['-1', '0.01', '86401', 'x']) {
    t.not((await daemon.ctl('stats', 'web', '--interval', wrong)).code, 0, wrong);
  }
});
