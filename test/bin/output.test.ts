// What becomes of a program whose output goes nowhere. The daemon and its keeper serve on, and end when they are told to;
// where their log works again, it says how much is missing. balloonctl says why it failed, waits like any filter, or ends
// without a word, as its reader has it.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BalloonDriver, CONFIG_NUM_PAGES } from '../support/balloon-driver.js';
import { BIN } from '../support/daemon.js';
import { temporaryFolder } from '../support/fleet.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { LOG_CHANNELS, stalledPipe, unmendable } from '../support/log-channel.js';
import { makeNoise, startLogged, until, type LoggedDaemon } from '../support/logged-daemon.js';
import { ANY_VMM } from '../support/vmm-orders.js';
import { readU32 } from '../support/wire.js';

const RAM_BYTES = 64 * 2 ** 20;
const TIMEOUT_MS = 30_000;

async function connect(
  t: Test,
  { folder }: LoggedDaemon,
): Promise<{ frontend: Frontend; driver: BalloonDriver }> {
  const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  const frontend = new Frontend({
    socket: join(folder, 'vhost.sock'),
    ram,
    timeoutMs: TIMEOUT_MS,
    order: ANY_VMM,
  });
  await frontend.connect();
  t.teardown(() => frontend.close());
  return { frontend, driver: await BalloonDriver.start(frontend, { timeoutMs: TIMEOUT_MS }) };
}

/** The guest gives pages and takes them back, its VMM reads the configuration, and operators are answered. */
async function assertServed(
  t: Test,
  { control }: LoggedDaemon,
  { frontend, driver }: Awaited<ReturnType<typeof connect>>,
): Promise<void> {
  const pages = [5000, 5001, 5002];
  await driver.inflate(pages);
  await driver.deflate(pages);
  const [vm] = (await control.list()).filter(({ state }) => state === 'running');
  const targetBytes = (vm?.balloon.targetBytes ?? 0) + 2 ** 20;
  await control.setTarget(vm?.name ?? '', { balloonBytes: targetBytes });
  t.equal(readU32(await frontend.getConfig(), CONFIG_NUM_PAGES), targetBytes / 4096, 'the VMM is answered');
}

async function endsOn(t: Test, { child }: LoggedDaemon, signal: NodeJS.Signals): Promise<void> {
  const exit = child.exitCode === null ? once(child, 'exit') : Promise.resolve([child.exitCode]);
  child.kill(signal);
  t.same(await exit, [0, null], `${signal} ends it in order`);
}

for (const [name, open] of Object.entries(LOG_CHANNELS)) {
  void t.test(`the daemon logs to ${name}`, async (t) => {
    const folder = temporaryFolder(t);
    const channel = open(folder);
    t.teardown(() => channel.close());
    const daemon = await startLogged(t, channel, folder, []);
    const vm = await connect(t, daemon);
    channel.break(daemon.pid);
    await makeNoise(daemon);
    await assertServed(t, daemon, vm);
    if (channel.mend !== null) {
      channel.mend();
      const told = /(\d+) lines of the log were dropped/;
      const lines = await until(
        'the log says how much is missing',
        () => told.exec(channel.text())?.[1] ?? null,
      );
      t.ok(Number(lines) > 0, `${lines} lines`);
      await assertServed(t, daemon, vm);
    }
    await endsOn(t, daemon, 'SIGTERM');
  });

  void t.test(`the keeper and its daemon log to ${name}`, async (t) => {
    const folder = temporaryFolder(t);
    const channel = open(folder);
    t.teardown(() => channel.close());
    const keeper = await startLogged(t, channel, folder, ['--supervise']);
    const vm = await connect(t, keeper);
    channel.break(keeper.pid);
    await makeNoise(keeper);
    await assertServed(t, keeper, vm);
    const daemonOf = (): number | null => {
      const path = `/proc/${keeper.pid}/task/${keeper.pid}/children`;
      const pids = existsSync(path) ? readFileSync(path, 'utf8').trim().split(' ').map(Number) : [];
      return pids.find((pid) => pid > 0) ?? null;
    };
    const before = await until('there is a daemon', daemonOf);
    process.kill(before, 'SIGKILL');
    await until('another daemon is started', () => {
      const now = daemonOf();
      return now !== null && now !== before;
    });
    await until('and serves', () =>
      keeper.control.list().then(
        ({ length }) => length > 0,
        () => false,
      ),
    );
    await assertServed(t, keeper, vm);
    await endsOn(t, keeper, 'SIGTERM');
  });
}

/** Runs balloonctl in the shell's words, where "$@" is it; `pid` is told as soon as it runs. */
async function ctl(script: string, ...args: string[]): Promise<{ code: number | null; stderr: string }> {
  const command = [process.execPath, join(BIN, 'balloonctl.js'), ...args];
  const child = spawn('sh', ['-c', script, 'sh', ...command], { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stderr };
}

/** Help, a document, and lines of a client of the daemon: all print in one place. */
const COMMANDS: readonly (readonly string[])[] = [['help'], ['--json', 'list'], ['events']];

void t.test('balloonctl whose output goes nowhere', async (t) => {
  const folder = temporaryFolder(t);
  const daemon = await startLogged(t, unmendable('exec "$@" 2>/dev/null'), folder, []);
  const control = ['--control', join(folder, 'control.sock')];
  const full = `exec unshare --mount sh -c 'mount -t tmpfs -o size=4k log /mnt && cat /dev/zero >/mnt/filler 2>&-
    exec "$@" >>/mnt/filler' sh "$@"`;
  for (const command of COMMANDS) {
    const name = command.join(' ');
    for (const script of ['exec "$@" >/dev/full', full]) {
      const { code, stderr } = await ctl(script, ...command, ...control);
      t.equal(code, 1, name);
      t.match(stderr, /^balloonctl: [^\n]+\(ENOSPC\): free space there, or send it elsewhere\n$/, name);
    }
    t.same(
      await ctl('(sleep 0.1; "$@"; echo $? >&2) | exec true', ...command, ...control),
      { code: 0, stderr: '0\n' },
      `a reader that is gone: ${name}`,
    );
    const closed = await ctl('exec "$@" >&-', ...command, ...control);
    t.equal(closed.code, 0, `closed: ${name}`);
    t.match(closed.stderr, /^(balloonctl: note: [^\n]+\n)?$/, `closed: ${name}`);
  }
  t.equal((await ctl('exec "$@" 2>/dev/full', 'nonsense')).code, 2, 'the exit code says it');
  t.match(
    await ctl(
      'exec "$@"',
      ...['policy', 'simulate', '--synthetic', '1', '--hours', '1', '--plot', '/dev/full'],
    ),
    { code: 1, stderr: /^balloonctl: [^\n]*ENOSPC[^\n]*\n$/ },
  );
  const following = ctl('(exec "$@") | exec head -n 1', 'events', '--follow', ...control);
  // Each reload is an event; a reader that is gone is noticed with the next one.
  const events = setInterval(() => void daemon.control.reload(), 300);
  t.same(await following, { code: 0, stderr: '' });
  clearInterval(events);
  await endsOn(t, daemon, 'SIGTERM');
});

/** Whether the process stands in write() on stdout; the numbers are those of x86-64 and arm64. */
function writes(pid: number): boolean {
  return /^(1|64) 0x1 /.test(readFileSync(`/proc/${pid}/syscall`, 'latin1'));
}

void t.test('balloonctl waits for a reader that stalls, and loses nothing', async (t) => {
  const pipe = stalledPipe(temporaryFolder(t));
  t.teardown(() => pipe.close());
  const script = pipe.shell.replace('2>', '>');
  const stalled = async (): Promise<ChildProcess> => {
    pipe.fill();
    const command = [process.execPath, join(BIN, 'balloonctl.js'), 'help', '--json'];
    const child = spawn('sh', ['-c', script, 'sh', ...command], { stdio: 'ignore' });
    await until('it waits', () => writes(child.pid ?? 0));
    return child;
  };
  const patient = await stalled();
  const ended = once(patient, 'exit');
  const draining = setInterval(() => pipe.text(), 5);
  t.same(await ended, [0, null]);
  clearInterval(draining);
  const [document = ''] = pipe.text().split('\n').slice(-2);
  t.match(JSON.parse(document), { commands: [{ name: 'list' }] }, 'whole');
  const hopeless = await stalled();
  hopeless.kill('SIGTERM');
  t.same(await once(hopeless, 'exit'), [null, 'SIGTERM'], 'a signal ends the wait');
});
