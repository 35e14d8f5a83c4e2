// The daemon as a program: flags, exit codes, and what it says when it cannot start.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { connectUnix, listenUnix, socketPair } from '../../src/os/socket.js';
import { Frontend } from '../support/frontend.js';
import { NEXT_STEP } from '../support/next-step.js';

const PROGRAM = join(import.meta.dirname, '../../bin/balloond.js');

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function folderFor(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'balloond-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

function start(
  args: string[],
  fd?: number,
): { child: ChildProcess; ended: Promise<Ended>; output: () => string } {
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    stdio: ['ignore', 'pipe', 'pipe', ...(fd === undefined ? [] : [fd])],
  });
  const output = { stdout: '', stderr: '' };
  child.stdout?.on('data', (data: Buffer) => (output.stdout += data.toString()));
  child.stderr?.on('data', (data: Buffer) => (output.stderr += data.toString()));
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, ...output }));
  return { child, ended, output: () => output.stderr };
}

async function started(daemon: { ended: Promise<Ended>; output: () => string }): Promise<void> {
  while (!daemon.output().includes('daemon-started')) {
    const ended = await Promise.race([
      daemon.ended,
      new Promise<null>((resolve) => setTimeout(resolve, 20, null)),
    ]);
    if (ended !== null) throw new Error(`it ended: ${ended.stderr}`);
  }
}

void t.test('--print-capabilities prints JSON and ends', async (t) => {
  const { code, stdout } = await start(['--print-capabilities']).ended;
  t.equal(code, 0);
  t.same(JSON.parse(stdout), { type: 'balloon', features: [] });
});

void t.test('what cannot work is one line that says what to do', async (t) => {
  const folder = folderFor(t);
  // They run at the same time.
  const control = (name: string): string[] => ['--control', join(folder, `${name}.control`)];
  const taken = join(folder, 'taken.sock');
  const listener = listenUnix(taken);
  t.teardown(() => closeFd(listener));
  const cases: [string[], number, RegExp][] = [
    [['--bogus'], 2, /unknown option/],
    [['--fd', 'x'], 2, /number of an open socket/],
    [['--log-level', 'loud'], 2, /Allowed choices/],
    [['--socket-path', '/a', '--fd', '3'], 2, /cannot be used with/],
    [[], 1, /--socket-path PATH, --fd N or a --config/],
    [['--fd', '99', ...control('fd')], 1, /EBADF: give the number/],
    [['--socket-path', `/${'x'.repeat(120)}`, ...control('long')], 1, /107 bytes/],
    [['--socket-path', join(folder, 'none/v.sock'), ...control('none')], 1, /create its folder/],
    [['--socket-path', taken, ...control('taken')], 1, /another balloond running/],
    [['--socket-path', join(folder, 'v.sock'), '--metrics', '9797', ...control('port')], 1, /give HOST:PORT/],
    [['--config', join(folder, 'none.toml')], 1, /cannot read the configuration/],
    [['--socket-path', join(folder, 'v2.sock'), '--control', join(folder, 'none/c')], 1, /create its folder/],
  ];
  const results = await Promise.all(cases.map(async ([args]) => start(args).ended));
  results.forEach(({ code, stderr }, n) => {
    const [args, expected, words] = cases[n] ?? [[], 0, /./];
    t.equal(code, expected, args.join(' '));
    t.match(stderr, words);
    t.match(stderr.trimEnd(), NEXT_STEP);
    t.equal(stderr.trimEnd().split('\n').length, 1, 'one line');
  });
  t.same(readdirSync(folder), ['taken.sock'], 'nothing is left behind');
});

void t.test('--check-config', async (t) => {
  const folder = folderFor(t);
  const [good, bad] = ['good.toml', 'bad.toml'].map((name) => join(folder, name));
  writeFileSync(good ?? '', '[[socket]]\npath = "/nowhere/v.sock"\n');
  writeFileSync(bad ?? '', '[[socket]]\npath = "/x"\nnmae = "y"\n');
  const [fine, wrong, none] = await Promise.all(
    [['--config', good ?? ''], ['--config', bad ?? ''], []].map(
      (args) => start(['--check-config', ...args]).ended,
    ),
  );
  t.match(fine, { code: 0, stdout: /good\.toml: nothing wrong/, stderr: '' });
  t.match(wrong, { code: 1, stdout: '', stderr: /bad\.toml:3:1: socket\.0\.nmae is unknown/ });
  t.match(none, { code: 2, stderr: /needs --config FILE/ });
});

void t.test('SIGTERM ends it in order, and its sockets are gone', async (t) => {
  const folder = folderFor(t);
  mkdirSync(join(folder, 'run'));
  const paths = ['vhost.sock', 'control.sock'].map((name) => join(folder, 'run', name));
  const daemon = start(['--socket-path', paths[0] ?? '', '--control', paths[1] ?? '']);
  await started(daemon);
  t.ok(paths.every((path) => existsSync(path)));
  daemon.child.kill('SIGTERM');
  const { code, stderr } = await daemon.ended;
  t.equal(code, 0);
  t.match(stderr, /"event":"daemon-stopping"/);
  t.notOk(paths.some((path) => existsSync(path)));
});

void t.test('--fd takes a connected socket, or one that listens', async (t) => {
  const folder = folderFor(t);
  const path = join(folder, 'listening.sock');
  const listener = listenUnix(path);
  const [ours, theirs] = socketPair();
  for (const [fd, connect] of [
    [theirs, (): number => ours],
    [listener, (): number => connectUnix(path)],
  ] as const) {
    const daemon = start(['--fd', '3', '--control', join(folder, 'control.sock')], fd);
    closeFd(fd);
    await started(daemon);
    const frontend = new Frontend({ socket: connect() });
    await frontend.connect();
    t.equal(frontend.maxQueues, 5n);
    frontend.close();
    daemon.child.kill('SIGTERM');
    t.equal((await daemon.ended).code, 0);
  }
});
