// Each signal that an operator could plausibly send, to a daemon that starts, to one that serves, and to its keeper.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { daemonPage } from '../../src/manual/pages.js';
import { ENDING_SIGNALS, IGNORED_SIGNALS } from '../../src/ops/signals.js';
import { BIN } from '../support/daemon.js';
import { temporaryFolder } from '../support/fleet.js';

/** Those that do nothing to any process, or to one of Node's. */
const HARMLESS = ['SIGCHLD', 'SIGCONT', 'SIGPIPE', 'SIGURG', 'SIGWINCH'] as const;
/** Of SIGHUP, in SigCgt of /proc/PID/status. */
const SIGHUP_BIT = 1n;

class Daemon {
  readonly child: ChildProcess;
  readonly config: string;
  readonly client: ControlClient;
  /** With its code, or the signal that ended it, when nobody has its log open any more. */
  readonly closed: Promise<[code: number | null, signal: NodeJS.Signals | null]>;
  log = '';

  constructor(t: Test, args: string[] = [], environment: Record<string, string> = {}) {
    const folder = temporaryFolder(t);
    this.config = join(folder, 'balloond.toml');
    writeFileSync(this.config, `[[socket]]\npath = "${join(folder, 'v.sock')}"\n`);
    const control = join(folder, 'control.sock');
    this.client = new ControlClient(control);
    const program = [join(BIN, 'balloond.js'), '--config', this.config, '--control', control];
    this.child = spawn(process.execPath, [...program, '--log-format', 'json', ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...environment },
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.log += text));
    this.closed = once(this.child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
    t.teardown(() => this.child.kill('SIGKILL'));
  }

  /** Of what was started, which is the keeper where there is one. */
  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Of the daemon that a keeper started last. */
  get served(): number {
    return Number([...this.log.matchAll(/"event":"daemon-started","pid":(\d+)/g)].at(-1)?.[1]);
  }

  count(event: string): number {
    return this.log.split(`"event":"${event}"`).length - 1;
  }

  async said(event: string, times = 1): Promise<void> {
    while (this.count(event) < times) {
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        throw new Error(`it ended: ${this.log}`);
      }
      await sleep(5);
    }
  }

  /** It handles signals from now on. */
  async catching(): Promise<void> {
    for (;;) {
      const status = readFileSync(`/proc/${this.pid}/status`, 'latin1');
      const mask = /SigCgt:\t([0-9a-f]+)/.exec(status)?.[1];
      if ((BigInt(`0x${mask ?? '0'}`) & SIGHUP_BIT) !== 0n) return;
      await sleep(1);
    }
  }
}

/** Whether the process has a socket of the network, as an inspector does. */
function onNetwork(pid: number): boolean {
  const sockets = readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
    } catch {
      return [];
    }
  });
  const tables = ['tcp', 'tcp6'].map((name) => readFileSync(`/proc/${pid}/net/${name}`, 'latin1')).join('\n');
  const inodes = tables.split('\n').map((line) => line.trim().split(/\s+/)[9]);
  return sockets.some((inode) => inodes.includes(inode));
}

void t.test('a daemon that serves', async (t) => {
  const daemon = new Daemon(t);
  await daemon.said('daemon-started');
  for (const signal of [...HARMLESS, ...IGNORED_SIGNALS]) {
    daemon.child.kill(signal);
    t.same(await daemon.client.list(), [], signal);
  }
  await daemon.said('signal-ignored', IGNORED_SIGNALS.length);
  t.notOk(onNetwork(daemon.pid), 'no inspector');
  t.notMatch(daemon.log, /Debugger/);
  for (const signal of ['SIGSTOP', 'SIGTSTP', 'SIGTTIN', 'SIGTTOU'] as const) {
    daemon.child.kill(signal);
    daemon.child.kill('SIGCONT');
    t.same(await daemon.client.list(), [], `${signal}, SIGCONT`);
  }
  daemon.child.kill('SIGHUP');
  await daemon.said('config-reloaded');
  daemon.child.kill('SIGKILL');
  t.same(await daemon.closed, [null, 'SIGKILL']);
});

void t.test('those that end it, end it in order', async (t) => {
  for (const signal of ENDING_SIGNALS) {
    const daemon = new Daemon(t);
    await daemon.said('daemon-started');
    daemon.child.kill(signal);
    t.same(await daemon.closed, [0, null], signal);
    t.equal(daemon.count('daemon-stopping'), 1);
  }
});

void t.test('a daemon that starts', async (t) => {
  for (const signal of ['SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE'] as const) {
    const daemon = new Daemon(t);
    await daemon.catching();
    daemon.child.kill(signal);
    await daemon.said('daemon-started');
    t.same(await daemon.client.list(), [], signal);
    t.notOk(onNetwork(daemon.pid), `${signal}: no inspector`);
    if (signal === 'SIGHUP') await daemon.said('config-reloaded');
    daemon.child.kill('SIGTERM');
    t.same(await daemon.closed, [0, null]);
  }
  for (const signal of ENDING_SIGNALS) {
    const daemon = new Daemon(t);
    await daemon.catching();
    daemon.child.kill(signal);
    const [code, by] = await daemon.closed;
    t.ok(code === 0 || by === signal, `${signal}: ended with ${code}, by ${by}`);
    t.equal(daemon.count('daemon-started'), daemon.count('daemon-stopping'), 'in order, or not at all');
  }
});

void t.test('a keeper passes SIGHUP on to a daemon that can take it', async (t) => {
  const keeper = new Daemon(t, ['--supervise']);
  await keeper.said('daemon-started');
  for (const signal of [...HARMLESS, ...IGNORED_SIGNALS]) keeper.child.kill(signal);
  await keeper.said('signal-ignored', IGNORED_SIGNALS.length);
  t.notOk(onNetwork(keeper.pid), 'no inspector');
  process.kill(keeper.served, 'SIGKILL');
  while (keeper.count('daemon-started') < 2) {
    keeper.child.kill('SIGHUP');
    await sleep(5);
  }
  await keeper.said('config-reloaded');
  t.same(await keeper.client.list(), []);
  t.equal(keeper.count('daemon-ended'), 1, 'the daemon that started was not ended by it');
  keeper.child.kill('SIGQUIT');
  t.same(await keeper.closed, [0, null]);
  t.equal(keeper.count('daemon-stopping'), 1);
});

void t.test('a keeper that is ended between two daemons starts no other one', async (t) => {
  const keeper = new Daemon(t, ['--supervise']);
  await keeper.said('daemon-started');
  // What is passed on says that the keeper knows that the daemon serves.
  keeper.child.kill('SIGHUP');
  await keeper.said('config-reloaded');
  writeFileSync(keeper.config, 'no TOML');
  process.kill(keeper.served, 'SIGKILL');
  // By now it waits for more than a moment before it starts the next one.
  await keeper.said('daemon-ended', 5);
  keeper.child.kill('SIGTERM');
  const [code] = await keeper.closed;
  t.equal(code, 0);
  t.ok(keeper.count('daemon-ended') <= 6);
});

void t.test('an inspector that the environment opens is said', async (t) => {
  const daemon = new Daemon(t, [], { NODE_OPTIONS: '--inspect=127.0.0.1:0' });
  await daemon.said('daemon-started');
  await daemon.said('inspector-open');
  t.ok(onNetwork(daemon.pid), 'the test can tell');
  daemon.child.kill('SIGTERM');
  await daemon.closed;
});

void t.test('the manual page says what each does', (t) => {
  const page = daemonPage('1.0.0').replaceAll('\\-', '-');
  const section = page.slice(page.indexOf('.SH SIGNALS'), page.indexOf('.SH EXIT STATUS'));
  for (const signal of [...ENDING_SIGNALS, ...IGNORED_SIGNALS, 'SIGHUP', 'SIGPIPE', 'SIGTSTP', 'SIGKILL']) {
    t.match(section, signal);
  }
  t.end();
});
