import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { Check } from 'typebox/schema';
import { SCHEMAS, type VmView } from '../../../protocol/control/schema.js';
import { closeFd } from '../../../src/os/fd.js';
import { listenUnix } from '../../../src/os/socket.js';
import { GIB, MemoryFleet, serveFleet, temporaryFolder, verdict, vmView } from '../../support/fleet.js';

const MIB = 2 ** 20;

const BALLOONCTL = fileURLToPath(new URL('../../../bin/balloonctl.js', import.meta.url));

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function balloonctl(...args: string[]): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = execFile(process.execPath, [BALLOONCTL, ...args], (error, stdout, stderr) => {
      if (child.exitCode === null) reject(error ?? new Error('no exit code'));
      else resolve({ code: child.exitCode, stdout, stderr });
    });
  });
}

/** Asserts success without a word on stderr, and returns the one JSON document. */
async function documentOf(t: Test, ...args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await balloonctl(...args, '--json');
  t.equal(code, 0, stderr);
  t.equal(stderr, '');
  t.match(stdout, /^[^\n]+\n$/, 'one line');
  return JSON.parse(stdout) as unknown;
}

/** Asserts a failure with this code and one line on stderr, and returns the line. */
async function failureOf(t: Test, code: number, ...args: string[]): Promise<string> {
  const result = await balloonctl(...args);
  t.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
  t.match(result.stderr, /^balloonctl: [^\n]+\n$/, 'one line');
  return result.stderr;
}

void t.test('list', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const human = await balloonctl('--control', socketPath, 'list');
  t.match(human, { code: 0, stderr: '' });
  t.match(human.stdout, /^VM +STATE .*\nweb1 +running +4 GiB +4 GiB +0 B +0 B +3 GiB\n$/);
  t.notMatch(human.stdout, /\x1b/, 'no colours in a pipe');
  const vms = await documentOf(t, 'list', '--control', socketPath);
  t.ok(Check(SCHEMAS.VmList, vms));
  t.strictSame(vms, [vmView('web1')]);
  fleet.remove('web1');
  t.match((await balloonctl('--control', socketPath, 'list')).stdout, /^no VM is connected/);
  t.strictSame(await documentOf(t, 'list', '--control', socketPath), []);
});

void t.test('show', async (t) => {
  const { socketPath } = await serveFleet(t);
  t.match(
    (await balloonctl('--control', socketPath, 'show', 'web1')).stdout,
    /^web1 {2}pid 4242 {2}running: .*\n$/s,
  );
  const vm = await documentOf(t, '--control', socketPath, 'show', 'web1');
  t.ok(Check(SCHEMAS.Vm, vm));
  t.match(await failureOf(t, 1, '--control', socketPath, 'show', 'nope'), /"nope".*web1/);
});

void t.test('set', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const memory = await balloonctl('--control', socketPath, 'set', 'web1', '--memory', '1.5GiB');
  t.match(memory, { code: 0, stderr: '' });
  t.equal(memory.stdout, 'web1: balloon target 2.5 GiB (the guest keeps 1.5 GiB), it holds 0 B now\n');
  const vm = await documentOf(t, '--control', socketPath, 'set', 'web1', '--balloon', '1G');
  t.ok(Check(SCHEMAS.Vm, vm));
  t.equal((vm as VmView).balloon.targetBytes, GIB);
  fleet.refusal = 'the VM is going away: try again later';
  const line = await failureOf(t, 1, '--control', socketPath, 'set', 'web1', '--balloon', '1G');
  t.equal(line, 'balloonctl: the VM is going away: try again later\n');
});

void t.test('set by what holds now, or by a part of the memory', async (t) => {
  const { socketPath } = await serveFleet(t);
  const target = async (...size: string[]): Promise<number> => {
    const vm = await documentOf(t, '--control', socketPath, 'set', 'web1', ...size);
    return (vm as VmView).balloon.targetBytes / GIB;
  };
  t.equal(await target('--balloon', '+512M'), 0.5);
  t.equal(await target('--balloon', '+512M'), 1);
  t.equal(await target('--memory', '+512M'), 0.5, 'the guest keeps more');
  t.equal(await target('--memory=-1G'), 1.5);
  t.equal(await target('--balloon', '25%'), 1);
  t.equal(await target('--memory', '12.5 %'), 3.5);
  t.equal(await target('--balloon=-4G'), 0, 'never less than nothing');
  const { socketPath: other, fleet } = await serveFleet(t);
  fleet.put(vmView('web1', { state: 'connected', ramBytes: 0 }));
  const line = await failureOf(t, 1, '--control', other, 'set', 'web1', '--balloon', '50%');
  t.match(line, /is not known yet[^:]+: give a size/);
});

void t.test('set --wait', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const set = ['--control', socketPath, 'set', 'web1', '--balloon', '1G', '--wait'];

  let looks = 0;
  fleet.onFind = (name) => {
    if (++looks === 3) fleet.inflate(name, GIB);
  };
  const reached = await balloonctl(...set);
  t.match(reached, { code: 0, stderr: '' });
  t.match(reached.stdout, /, reached\n$/);
  t.ok(looks >= 3, 'not before the guest followed');

  fleet.inflate('web1', GIB / 2);
  const late = await balloonctl(...set, '--timeout', '0.3', '--json');
  t.equal(late.code, 4);
  t.match(late.stderr, /^balloonctl: web1 holds 512 MiB of 1 GiB after 0\.3 s: [^\n]+\n$/);
  t.ok(Check(SCHEMAS.Vm, JSON.parse(late.stdout)), 'the last state is printed all the same');
  fleet.put(vmView('web1', { state: 'connected' }));
  t.match(await failureOf(t, 4, ...set, '--timeout', '0'), /load virtio_balloon in the guest/);

  looks = 0;
  fleet.onFind = (name) => {
    if (++looks === 3) void fleet.setTarget(name, { balloonBytes: 2 * GIB });
  };
  t.match(await failureOf(t, 1, ...set), /changed to 2 GiB by someone else/);

  looks = 0;
  fleet.onFind = (name) => {
    if (++looks === 3) fleet.remove(name);
  };
  t.match(await failureOf(t, 1, ...set), /no VM is called "web1"/);
});

void t.test('evacuate', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const evacuate = ['--control', socketPath, 'evacuate', 'web1'];
  const here = 'balloonctl orders web1 --take-back';
  await documentOf(t, '--control', socketPath, 'set', 'web1', '--balloon', '1G');
  fleet.inflate('web1', GIB);
  const late = await failureOf(t, 4, ...evacuate, '--timeout', '0');
  t.match(late, /^balloonctl: web1 holds 1 GiB of 0 B after 0 s: the guest has yet to take its memory back/);

  await documentOf(t, '--control', socketPath, 'set', 'web1', '--balloon', '1G');
  let looks = 0;
  fleet.onFind = (name) => {
    if (++looks === 4) fleet.inflate(name, 0);
  };
  const { code, stdout } = await balloonctl(...evacuate);
  t.equal(code, 0);
  t.ok(looks >= 4, 'not before the guest has its memory');
  t.match(stdout, /^web1: the balloon is empty, the device may go\n/);
  t.match(stdout, `balloonctl set web1 --balloon ${GIB}  # 1 GiB\n`);
  t.match(stdout, here);
  fleet.onFind = () => undefined;

  const none = { cacheLimitBytes: null, thereCache: null };
  const way = { vm: 'web1', targetBytes: 0, there: null, ...none, here };
  t.strictSame(await documentOf(t, ...evacuate), way, 'once more');
  fleet.put(vmView('web1', { state: 'connected', ramBytes: 0 }));
  t.strictSame(
    await documentOf(t, ...evacuate, '--timeout', '0'),
    way,
    'a guest that never gave anything up',
  );

  const cache = { ...vmView('web1').balloon, targetBytes: 200 * MIB, actualBytes: 150 * MIB };
  fleet.put(vmView('web1', { cache }));
  const both = await balloonctl(...evacuate);
  t.match(
    both.stdout,
    '  the page cache balloon holds 150 MiB, which its driver gives back as the device goes\n',
  );
  t.match(both.stdout, `  and there: balloonctl set web1 --cache-limit ${200 * MIB}  # 200 MiB\n`);
  t.match(
    await documentOf(t, ...evacuate),
    { cacheLimitBytes: 200 * MIB, thereCache: `balloonctl set web1 --cache-limit ${200 * MIB}` },
    'the same in JSON',
  );
  fleet.put(vmView('web1', { kind: 'qmp' }));
  t.match(await failureOf(t, 1, ...evacuate), /web1 has QEMU's own balloon: keep its balloon/);
});

void t.test('set --wait waits for a guest that has yet to say what it holds', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const balloon = { ...vmView('web1').balloon, actualUnknown: true };
  fleet.put(vmView('web1', { balloon }));
  const set = ['--control', socketPath, 'set', 'web1', '--balloon', '0'];
  t.match((await balloonctl(...set)).stdout, /, it has yet to say what it holds\n$/);
  t.match(
    await failureOf(t, 4, ...set, '--wait', '--timeout', '0'),
    /the guest of web1 did not say within 0 s what its balloon holds: /,
  );
  let looks = 0;
  fleet.onFind = (name) => {
    if (++looks === 3) fleet.put(vmView(name, { orders: fleet.list()[0]?.orders ?? [] }));
  };
  t.match((await balloonctl(...set, '--wait')).stdout, /, reached\n$/);
  t.ok(looks >= 3, 'not before the guest said it');
});

void t.test('set --wait before the VMM shares memory waits for the driver', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  fleet.put(vmView('web1', { state: 'connected', ramBytes: 0 }));
  const set = ['--control', socketPath, 'set', 'web1', '--memory', '1G'];
  const wished = await balloonctl(...set);
  t.equal(wished.stdout, 'web1: the guest is to keep 1 GiB once its driver runs\n');
  t.match(
    await failureOf(t, 4, ...set, '--wait', '--timeout', '0'),
    /no guest driver ran in web1 within 0 s: load virtio_balloon/,
  );

  let looks = 0;
  fleet.onFind = (name) => {
    looks++;
    if (looks === 3) {
      const balloon = { ...vmView(name).balloon, targetBytes: 3 * GIB };
      const orders = fleet.list()[0]?.orders ?? [];
      fleet.put(vmView(name, { state: 'running', ramBytes: 4 * GIB, balloon, orders }));
    }
    if (looks === 5) fleet.inflate(name, 3 * GIB);
  };
  const reached = await balloonctl(...set, '--wait');
  t.match(reached, { code: 0, stdout: /^web1: balloon target 3 GiB \(the guest keeps 1 GiB\), reached\n$/ });
  t.ok(looks >= 5, 'not before the guest followed');
});

void t.test('stats', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const human = await balloonctl('--control', socketPath, 'stats', 'web1');
  t.match(human.stdout, /^3 s old\nVIRTIO_BALLOON_S_MEMFREE +2\.5 GiB\n/);
  const stats = await documentOf(t, '--control', socketPath, 'stats', 'web1');
  t.ok(Check(SCHEMAS.Stats, stats));
  t.strictSame(stats, vmView('web1').stats);
  t.match(await documentOf(t, '--control', socketPath, 'stats', 'web1', '--refresh'), { ageSeconds: 0 });
  fleet.put(vmView('web1', { stats: null }));
  t.match(await failureOf(t, 1, '--control', socketPath, 'stats', 'web1'), /refresh/);
});

void t.test('inhibit and allow', async (t) => {
  const { socketPath } = await serveFleet(t);
  const human = await balloonctl('--control', socketPath, 'inhibit', 'web1', '--reason', 'backup');
  t.strictSame(human, { code: 0, stdout: 'web1: not discarding: backup\n', stderr: '' });
  const inhibited = await documentOf(t, '--control', socketPath, 'inhibit', 'web1');
  t.ok(Check(SCHEMAS.Vm, inhibited));
  t.equal((inhibited as VmView).inhibited, 'inhibited by the operator');
  const allowed = await documentOf(t, '--control', socketPath, 'allow', 'web1');
  t.ok(Check(SCHEMAS.Vm, allowed));
  t.equal((allowed as VmView).inhibited, null);
  t.equal((await balloonctl('--control', socketPath, 'allow', 'web1')).stdout, 'web1: discarding\n');
  t.match(
    await failureOf(t, 1, '--control', socketPath, 'inhibit', 'web1', '--reason', 'two\nlines'),
    /one line of 1 to 200/,
  );
  await failureOf(t, 1, '--control', socketPath, 'allow', 'nope');
});

void t.test('events', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  t.strictSame(await balloonctl('--control', socketPath, 'events'), { code: 0, stdout: '', stderr: '' });
  events.emit('daemon-started', 'hello');
  events.emit('inhibited', 'evil \x1b[2J', 'web1');
  const human = await balloonctl('--control', socketPath, 'events');
  t.equal(
    human.stdout,
    '2025-01-01T12:00:01Z info  daemon-started hello\n' +
      '2025-01-01T12:00:02Z warn  inhibited web1: evil ?[2J\n',
  );
  const { stdout } = await balloonctl('--control', socketPath, 'events', '--json');
  const documents = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
  t.ok(documents.every((document) => Check(SCHEMAS.Event, document)));
  t.strictSame(documents, events.recent(0));
});

void t.test('events --follow', async (t) => {
  const { socketPath, events, close } = await serveFleet(t);
  events.emit('daemon-started', 'hello');
  const child = spawn(process.execPath, [
    BALLOONCTL,
    '--control',
    socketPath,
    '--json',
    'events',
    '--follow',
  ]);
  const exit = once(child, 'close');
  let stdout = '';
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  await once(child.stdout, 'data');
  events.emit('vm-connected', 'news', 'web1');
  await once(child.stdout, 'data');
  events.emit('daemon-stopping', 'bye');
  await close();
  while (!stderr.includes('\n')) await once(child.stderr, 'data');
  child.kill();
  t.strictSame(await exit, [null, 'SIGTERM'], 'until the daemon is back');
  t.strictSame(
    stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown),
    events.recent(0),
  );
  t.match(stderr, /^balloonctl: waiting for the daemon: [^\n]+\n$/);
});

void t.test('a reader that has seen enough is no failure', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  events.emit('daemon-started', 'hello');
  const child = spawn(process.execPath, [BALLOONCTL, '--control', socketPath, 'events', '--follow']);
  const exit = once(child, 'close');
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  await once(child.stdout, 'data');
  child.stdout.destroy();
  events.emit('vm-connected', 'news', 'web1');
  t.strictSame(await exit, [0, null]);
  t.equal(stderr, '');
});

void t.test('doctor', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  fleet.put(vmView('web1', verdict('ring-stopped', 'a ring is stopped', 'reload the driver')));
  const human = await balloonctl('--control', socketPath, 'doctor');
  t.match(human, { code: 1, stderr: /^balloonctl: \d+ to mend: [^\n]+\n$/ });
  t.match(human.stdout, /mend {2}web1: verdict: a ring is stopped\n {6}-> reload the driver/);
  t.ok(human.stdout.split('\n').every((line) => line.length <= 80));
  const { stdout } = await balloonctl('--control', '/nonexistent', 'doctor', '--json');
  const findings = JSON.parse(stdout) as { subject: string; mend: string | null }[];
  t.match(findings.at(-1), { subject: 'daemon', level: 'mend', mend: /^systemctl start balloond\.service/ });
});

void t.test('reload', async (t) => {
  const { socketPath } = await serveFleet(t);
  const human = await balloonctl('--control', socketPath, 'reload');
  t.match(human, { code: 0, stdout: /^control: when the daemon restarts: systemctl restart / });
  t.ok(Check(SCHEMAS.Reload, await documentOf(t, '--control', socketPath, 'reload')));
});

void t.test('qemu-args needs no daemon', async (t) => {
  const human = await balloonctl(
    'qemu-args',
    '--memory',
    '4G',
    '--name',
    'web1',
    '--socket-path',
    '/tmp/v.sock',
  );
  t.match(human, { code: 0, stderr: '' });
  t.match(human.stdout, /^-name guest=web1 \\\n-m 4G \\\n/);
  const cached = await balloonctl('qemu-args', '--cache-balloon');
  t.match(cached.stdout, 'path=/run/balloond/cache-balloon.sock');
  t.equal(
    (await balloonctl('qemu-args', '--cache-socket-path', '/c.sock')).stdout,
    cached.stdout.replace('/run/balloond/cache-balloon.sock', '/c.sock'),
  );
  const args = await documentOf(t, 'qemu-args');
  t.match(args, ['-m', '2G']);
  t.match(await failureOf(t, 2, 'qemu-args', '--memory', '1000'), /whole number of MiB/);
});

void t.test('bad usage is exit 2 before anybody is asked', async (t) => {
  const nowhere = ['--control', '/nonexistent/control.sock'];
  const cases: [string[], RegExp][] = [
    [['lst'], /unknown command 'lst': did you mean list\?/],
    [['frobnicate'], /unknown command 'frobnicate': commands are list, show, /],
    [['list', 'web1', 'extra'], /too many arguments/],
    [['list', '--bogus'], /unknown option '--bogus'/],
    [['show', 'web1', '--wait'], /unknown option '--wait'/],
    [['show'], /show needs VM/],
    [['set', 'web1'], /--memory SIZE .* --balloon SIZE .* or --cache-limit SIZE/],
    [['set', 'web1', '--cache-limit', '1G', '--wait'], /--wait cannot be used with --cache-limit/],
    [['set', 'web1', '--cache-limit', '1G', '--balloon', '1G'], /by a command of its own/],
    [['set', 'web1', '--memory', '1G', '--balloon', '1G'], /cannot be used with/],
    [['set', 'web1', '--memory'], /--memory needs a value: write --memory SIZE/],
    [
      ['set', 'web1', '--memory', '-5M'],
      /--memory needs a value: [^:]+ --memory=SIZE where the value begins with '-'/,
    ],
    [['set', 'web1', '--memory', '10'], /--memory: 10 means 10 B: write a unit, such as 10M/],
    [['set', 'web1', '--memory', '0'], /--memory: no guest lives without memory: write a size/],
    [['stats', 'web1', '--interval', '0.01'], /--interval: write 0, or seconds from 0\.1 to 86400/],
    [['stats', 'web1', '--refresh=1'], /--refresh takes no value: write --refresh alone/],
    [['set', 'web1', '--memory', '1.5GB'], /512M, 2G, 1\.5GiB, 1TiB or plain bytes/],
    [['set', 'web1', '--balloon', 'a\nb'], /512M/],
    [['set', 'web1', '--balloon=-1'], /1 means 1 B: write a unit/],
    [['set', 'web1', '--memory', '16384'], /16384 means 16 KiB: write a unit, such as 16384M /],
    [['set', 'web1', '--memory', '524288'], /524288 means 512 KiB: write a unit, such as 524288K /],
    [['set', 'web1', '--balloon=-524288'], /524288 means 512 KiB: write a unit, such as 524288K /],
    [['set', 'web1', '--memory', '+'], /write \+64M for more/],
    [['set', 'web1', '--memory=-10%'], /-10% is no change of a size/],
    [['set', 'web1', '--balloon', '101%'], /up to 100%/],
    [['set', 'web1', '--cache-limit', '1G', '--force'], /--force cannot be used/],
    [['set', 'web1', '--balloon', '1G', '--timeout', '5'], /--timeout needs --wait/],
    [['set', 'web1', '--balloon', '1G', '--wait', '--timeout', 'soon'], /seconds/i],
    [['qemu-args', '--memory', '0'], /whole number of MiB/],
  ];
  for (const [args, why] of cases) t.match(await failureOf(t, 2, ...nowhere, ...args), why);
  const bare = await balloonctl();
  t.equal(bare.code, 2);
  t.match(bare.stderr, /^Usage: balloonctl/, 'without a command: the help');
});

void t.test('help is no failure', async (t) => {
  for (const args of [['--help'], ['help'], ['set', '--help'], ['help', 'set']]) {
    const { code, stdout, stderr } = await balloonctl(...args);
    t.strictSame({ code, stderr }, { code: 0, stderr: '' });
    t.match(stdout, /^Usage: balloonctl/);
    t.ok(
      stdout.split('\n').every((line) => line.length <= 80),
      args.join(' '),
    );
  }
  t.ok((await balloonctl('help')).stdout.trimEnd().split('\n').length <= 24, 'all commands fit a screen');
});

void t.test('an unreachable daemon is exit 3', async (t) => {
  const folder = temporaryFolder(t);
  const missing = join(folder, 'missing.sock');
  t.match(
    await failureOf(t, 3, '--control', missing, 'list'),
    /missing\.sock does not exist: run systemctl start balloond/,
  );

  const stale = join(folder, 'stale.sock');
  closeFd(listenUnix(stale));
  t.match(await failureOf(t, 3, '--control', stale, 'top', '--once'), /has no daemon behind it/);

  const file = join(folder, 'file');
  writeFileSync(file, '');
  await failureOf(t, 3, '--control', file, 'set', 'web1', '--balloon', '1G');

  await failureOf(t, 3, '--control', join(folder, 'x'.repeat(120)), 'list');

  const closing = await serveRaw(t, join(folder, 'closing.sock'), null);
  t.match(await failureOf(t, 3, '--control', closing, 'top', '--once'), /closed by the daemon/);
  const babble = await serveRaw(t, join(folder, 'babble.sock'), 'SSH-2.0-x\r\n');
  await failureOf(t, 3, '--control', babble, 'list');
  const page = 'HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>';
  const other = await serveRaw(t, join(folder, 'other.sock'), page);
  t.match(await failureOf(t, 3, '--control', other, 'list'), /is not the control socket of balloond/);
  const cut = await serveRaw(t, join(folder, 'cut.sock'), page.replace('6', '60'));
  t.match(await failureOf(t, 3, '--control', cut, 'top', '--once'), /closed by the daemon/);
});

/** A server that answers everything with these bytes and hangs up. */
async function serveRaw(t: Test, path: string, answer: string | null): Promise<string> {
  const server: Server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => (answer === null ? socket.destroy() : socket.end(answer)));
  });
  t.teardown(() => new Promise((resolve) => server.close(resolve)));
  server.listen(path);
  await once(server, 'listening');
  return path;
}

void t.test('a fleet with odd names', async (t) => {
  const name = 'a/b ü%2F';
  const { socketPath } = await serveFleet(t, new MemoryFleet(vmView(name)));
  t.match(await documentOf(t, '--control', socketPath, 'show', name), { name });
});
