// The daemon as a program: flags, exit codes, and what it says when it cannot start.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { closeFd } from '../../src/os/fd.js';
import { connectUnix, listenUnix, socketPair } from '../../src/os/socket.js';
import { Frontend } from '../support/frontend.js';
import { NEXT_STEP } from '../support/next-step.js';
import { ANY_VMM } from '../support/vmm-orders.js';

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
    [
      ['--config', '/dev/null', ...control('nothing')],
      2,
      /nothing to serve: give --socket-path PATH or --fd N, or/,
    ],
    [['--fd', '99', ...control('fd')], 1, /EBADF: give the number/],
    [['--socket-path', `/${'x'.repeat(120)}`, ...control('long')], 2, /107 bytes/],
    [['--socket-path', join(folder, 'none/v.sock'), ...control('none')], 2, /create its folder/],
    [['--socket-path', taken, ...control('taken')], 1, /EADDRINUSE: stop the process that listens there/],
    [['--socket-path', join(folder, 'v.sock'), '--metrics', '9797', ...control('port')], 2, /give HOST:PORT/],
    [['--config', join(folder, 'none.toml'), ...control('file')], 2, /none\.toml cannot be read \(ENOENT\)/],
    [['--socket-path', join(folder, 'v2.sock'), '--control', join(folder, 'none/c')], 2, /create its folder/],
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

void t.test('one cause, one remedy: what is at a path that cannot be listened on', async (t) => {
  const folder = folderFor(t);
  const at = (name: string): string => join(folder, name);
  writeFileSync(at('file'), '');
  mkdirSync(at('folder'));
  symlinkSync(at('nowhere'), at('link'));
  const listener = listenUnix(at('live'));
  t.teardown(() => closeFd(listener));
  for (const [name, words] of [
    ['file', /is a file and no socket: move it away, or give another path\n$/],
    ['folder', /is a folder: give the path of a file in it\n$/],
    ['link', /is a symbolic link that leads nowhere: move it away/],
    [
      'live',
      /EADDRINUSE: stop the process that listens there \(another balloond\?\), or give another path\n$/,
    ],
  ] as const) {
    const { stderr } = await start(['--socket-path', at(name), '--control', at('c')]).ended;
    t.match(stderr, words);
    t.throws(() => listenUnix(at(name)), { code: 'EADDRINUSE', standing: name === 'live' ? 'socket' : name });
  }
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

void t.test('--fd serves its socket beside those of the file, which may say how', async (t) => {
  const folder = folderFor(t);
  const [passed, own, config] = ['passed.sock', 'own.sock', 'b.toml'].map((name) => join(folder, name));
  const listener = listenUnix(passed ?? '');
  const socket = (path = '', name = ''): string => `[[socket]]\npath = "${path}"\nname = "${name}"\n`;
  writeFileSync(config ?? '', socket(passed, 'first') + socket(own, 'second'));
  const control = join(folder, 'control.sock');
  const daemon = start(['--fd', '3', '--config', config ?? '', '--control', control], listener);
  closeFd(listener);
  await started(daemon);
  const names: string[] = [];
  const client = new ControlClient(control);
  for (const path of [passed, own]) {
    const frontend = new Frontend({ socket: connectUnix(path ?? ''), order: ANY_VMM });
    await frontend.connect();
    const seen = (await client.list()).map(({ name }) => name).filter((name) => !names.includes(name));
    names.push(...seen);
    frontend.close();
  }
  t.same(names, ['first', 'second']);
  writeFileSync(config ?? '', socket(passed, 'other'));
  await client.reload();
  t.notOk(existsSync(own ?? ''), 'a socket that left the file goes');
  const frontend = new Frontend({ socket: connectUnix(passed ?? ''), order: ANY_VMM });
  t.teardown(() => frontend.close());
  await frontend.connect();
  t.ok((await client.list()).some(({ name }) => name === 'other'));
  writeFileSync(config ?? '', '');
  await client.reload();
  t.ok(existsSync(passed ?? ''), 'the passed one stays');
  daemon.child.kill('SIGTERM');
  t.equal((await daemon.ended).code, 0);
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
    const frontend = new Frontend({ socket: connect(), order: ANY_VMM });
    await frontend.connect();
    t.equal(frontend.maxQueues, 7n);
    frontend.close();
    daemon.child.kill('SIGTERM');
    t.equal((await daemon.ended).code, 0);
  }
});
