// A daemon that comes back while VMs wait for it, on a machine where somebody changed something meanwhile.
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import type { Finding } from '../../src/control/cli/finding.js';
import { eventually } from '../support/deadline.js';
import { BalloonDriver, CONFIG_ACTUAL } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { ANY_VMM } from '../support/vmm-orders.js';

const SOCKET = (name: string, more = ''): string => `[[socket]]\npath = "{folder}/${name}"\n${more}`;
const CONFIG = `log-level = "debug"\n${SOCKET('vm.sock', 'name = "web"\nstats-interval = 7\n')}${SOCKET('run/more.sock')}`;

interface Host {
  readonly daemon: DaemonProcess;
  readonly at: (name: string) => string;
  readonly write: (config: string) => void;
  /** Ends the daemon, and waits until the next one serves. */
  readonly restart: () => Promise<void>;
  /** Events since the last start, by name. */
  readonly said: (event: DaemonEvent['event']) => string[];
}

/** A daemon with a keeper, and the VM `web`. */
async function host(t: Test): Promise<Host> {
  const daemon = await DaemonProcess.start({
    config: '[[socket]]\npath = "{folder}/first.sock"\n',
    supervise: true,
  });
  t.teardown(() => daemon.stop());
  const at = (name: string): string => join(daemon.folder, name);
  const write = (config: string): void =>
    writeFileSync(at('balloond.toml'), config.replaceAll('{folder}', daemon.folder));
  mkdirSync(at('run'));
  write(CONFIG);
  await daemon.ok('reload');
  const vm = new Frontend({ socket: at('vm.sock'), order: ANY_VMM });
  await vm.connect();
  t.teardown(() => vm.close());
  let from = 0;
  return {
    daemon,
    at,
    write,
    restart: async () => {
      from = daemon.log.length;
      await daemon.crash();
    },
    said: (event) => {
      const lines = daemon.log.slice(from).split('\n').slice(0, -1);
      const events = lines.map((line) => JSON.parse(line) as { event: string; message: string });
      return events.filter((one) => one.event === event).map(({ message }) => message);
    },
  };
}

/** Connections to the socket at `path` that nobody accepted yet. */
function waiting(path: string): number {
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n');
  return lines.filter((line) => line.endsWith(` ${path}`)).length - 1;
}

const names = async (daemon: DaemonProcess): Promise<string[]> =>
  (await daemon.list()).map(({ name }) => name);

void t.test('files that have mistakes now', async (t) => {
  const files = [
    [
      'a setting that is none',
      (host: Host) => host.write(`${CONFIG}[policy]\nmod = "enforce"\n`),
      /policy\.mod/,
    ],
    ['not TOML', (host: Host) => host.write('[[socket'), /balloond\.toml:1:\d+: the file is not TOML/],
    ['a file that is gone', (host: Host) => rmSync(host.at('balloond.toml')), /cannot be read \(ENOENT\)/],
    ['no socket any more', (host: Host) => host.write(''), /there is nothing to serve/],
    [
      'a folder that is gone',
      (host: Host) => host.write(`${CONFIG}${SOCKET('gone/vm.sock')}`),
      /create its folder first/,
    ],
  ] as const;
  for (const [name, change, mistake] of files) {
    await t.test(name, async (t) => {
      const changed = await host(t);
      const { daemon, at, restart, said } = changed;
      change(changed);
      await restart();
      t.same(await names(daemon), ['web'], 'the VM goes on');
      t.match(said('config-set-aside'), [mistake]);
      const late = new Frontend({ socket: at('run/more.sock'), order: ANY_VMM });
      await late.connect();
      t.equal((await daemon.list()).length, 2, 'sockets are as they were');
      late.close();
    });
  }
});

void t.test('until the mistake is mended, whoever looks is told', async (t) => {
  const { daemon, write, restart, said } = await host(t);
  const mistake = /log-levle .*did you mean log-level/;
  write(`log-levle = "debug"\n${CONFIG}`);
  await restart();
  t.match(await daemon.ok('list'), mistake);
  const findings = JSON.parse((await daemon.ctl('doctor', '--json')).stdout) as Finding[];
  t.match(
    findings.filter(({ check }) => check === 'configuration'),
    [{ subject: 'daemon', level: 'mend', found: mistake, mend: /balloonctl reload/ }],
  );
  t.match(await daemon.ctl('reload'), { code: 1, stderr: mistake });
  await restart();
  t.same(await names(daemon), ['web'], 'also the daemon after the next');
  t.match(said('config-set-aside'), [mistake]);

  write(`${CONFIG}[[vm]]\nmatch = "web"\nstats-interval = 9\n`);
  await daemon.ok('reload');
  t.notMatch(await daemon.ok('list'), mistake, 'mended');
  await restart();
  t.same(said('config-set-aside'), []);
  t.same(await names(daemon), ['web']);
});

void t.test('a reload that was refused is a start that would be', async (t) => {
  const { daemon, write } = await host(t);
  write(`log-levle = "debug"\n${CONFIG}`);
  t.equal((await daemon.ctl('reload')).code, 1);
  t.match(await daemon.ok('list'), /log-levle .*did you mean log-level/);
  write(CONFIG);
  await daemon.ok('reload');
  t.notMatch(await daemon.ok('list'), /log-levle/);
});

void t.test('sockets that cannot be made again', async (t) => {
  const { daemon, at, restart, said } = await host(t);
  renameSync(at('control.sock'), at('old.sock'));
  mkdirSync(at('control.sock'));
  await restart();
  t.match(said('listen-failed'), [/control\.sock: .*a folder is there/]);
  t.equal(said('vm-resumed').length, 1, 'the VM goes on');
  rmSync(at('control.sock'), { recursive: true });
  const served = async (): Promise<boolean> => (await daemon.ctl('list')).code === 0;
  await eventually(served, () => `the daemon tries again; ${daemon.log}`);
  t.same(await names(daemon), ['web']);
});

void t.test('a socket more, in the way of which something is', async (t) => {
  const { daemon, at, write, restart, said } = await host(t);
  write(`${CONFIG}${SOCKET('new.sock')}`);
  mkdirSync(at('new.sock'));
  await restart();
  t.same(await names(daemon), ['web']);
  t.equal(said('config-set-aside').length + said('listen-failed').length, 1, 'it is said once');
  rmSync(at('new.sock'), { recursive: true });
  await daemon.ok('reload');
  const vm = new Frontend({ socket: at('new.sock'), order: ANY_VMM });
  await vm.connect();
  t.teardown(() => vm.close());
  t.equal((await daemon.list()).length, 2);
});

void t.test('where no VM waits, a start is refused until the mistake is mended', async (t) => {
  const config = '[[socket]]\npath = "{folder}/vm.sock"\n';
  const daemon = await DaemonProcess.start({ config, supervise: true });
  t.teardown(() => daemon.stop());
  const file = join(daemon.folder, 'balloond.toml');
  writeFileSync(file, 'log-levle = 1\n');
  const back = daemon.crash();
  const refused = (): boolean => daemon.log.includes('"event":"daemon-ended","code":2,');
  await eventually(refused, () => daemon.log);
  t.match(daemon.log, /^balloond: .*log-levle is unknown: did you mean log-level\?$/m);
  t.equal(daemon.child.exitCode, null, 'the keeper tries again');
  writeFileSync(file, config.replaceAll('{folder}', daemon.folder));
  await back;
  t.same(await names(daemon), []);
});

void t.test('commands that meet a restart get their answer from the next daemon', async (t) => {
  const daemon = await DaemonProcess.start({ supervise: true });
  t.teardown(() => daemon.stop());
  const ram = new GuestRam([{ gpa: 0, lenBytes: 2 ** 26 }]);
  const vm = new Frontend({ socket: daemon.socketPath, ram, order: ANY_VMM });
  await vm.connect();
  t.teardown(() => vm.close());
  await (await BalloonDriver.start(vm)).stopFollowing();
  const name = (await daemon.list())[0]?.name ?? '';
  const waits = daemon.ctl('set', name, '--balloon', '1M', '--wait', '--timeout', '600');
  await daemon.until(name, ({ balloon }) => balloon.targetBytes > 0, 'the target is set');

  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    const { pid } = daemon;
    // Nobody answers from here on.
    process.kill(pid, 'SIGSTOP');
    const asked = [
      ['list'],
      ['show', name],
      ['set', name, '--balloon', '1M'],
      ['inhibit', name],
      ['allow', name],
      ['policy'],
      ['events'],
      ['doctor'],
      ['reload'],
    ].map(async (command) => ({ command, ...(await daemon.ctl(...command)) }));
    // And the one that waits for the guest.
    await eventually(
      () => waiting(daemon.controlPath) > asked.length,
      () => `all of them wait, not ${waiting(daemon.controlPath)}`,
    );
    const back = daemon.crash(signal);
    if (signal === 'SIGTERM') process.kill(pid, 'SIGCONT');
    await back;
    for (const { command, code, stderr } of await Promise.all(asked)) {
      t.not(code, 3, `${signal}: ${command.join(' ')}: ${stderr}`);
    }
  }

  await vm.writeConfigField(CONFIG_ACTUAL, 2 ** 20 / PAGE_BYTES);
  const { code, stdout, stderr } = await waits;
  t.match(stdout, /reached/, `${code}: ${stderr}`);
});

void t.test('a daemon starts without certificates that it would read and not use', async (t) => {
  t.intercept(process, 'env', { value: { ...process.env, NODE_EXTRA_CA_CERTS: '/dev/null' } });
  const daemon = await DaemonProcess.start({ supervise: true });
  t.teardown(() => daemon.stop());
  const environment = (pid: number | undefined): string => readFileSync(`/proc/${pid ?? 0}/environ`, 'utf8');
  t.match(environment(daemon.child.pid), /\0NODE_EXTRA_CA_CERTS=/, 'the keeper has them');
  t.notMatch(environment(daemon.pid), /NODE_EXTRA_CA_CERTS/);
});
