// Commands for many VMs at once: those that a pattern or a band names, or all; and files of targets.
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { passedOn } from '../../../protocol/control/refusal.js';
import type { VmView } from '../../../protocol/control/schema.js';
import { RefusedError } from '../../../src/control/fleet.js';
import { GIB, MemoryFleet, serveFleet, temporaryFolder, vmView } from '../../support/fleet.js';

const BALLOONCTL = fileURLToPath(new URL('../../../bin/balloonctl.js', import.meta.url));
const NAMES = ['web-1', 'web-2', 'db-1', 'build-7'];
const BANDS: Readonly<Record<string, string>> = { 'db-1': 'gold', 'build-7': 'bronze' };

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...args: string[]): Promise<Result> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [BALLOONCTL, ...args], (_, stdout, stderr) => {
      resolve({ code: child.exitCode ?? -1, stdout, stderr });
    });
  });
}

function views(): VmView[] {
  return NAMES.map((name) => {
    const band = BANDS[name] ?? 'silver';
    return vmView(name, { policy: { band, minBytes: 0, maxBytes: 4 * GIB, mode: 'auto' } });
  });
}

async function serve(t: Test, fleet = new MemoryFleet(...views())) {
  const fixture = await serveFleet(t, fleet);
  const ctl = (...args: string[]): Promise<Result> => run('--control', fixture.socketPath, ...args);
  const targets = (): Record<string, number> =>
    Object.fromEntries(fleet.list().map(({ name, balloon }) => [name, balloon.targetBytes / GIB]));
  return { ...fixture, ctl, targets };
}

/** A fleet in which one VM takes no target. */
class PartlyRefusing extends MemoryFleet {
  override setTarget(
    name: string,
    target: Parameters<MemoryFleet['setTarget']>[1],
  ): ReturnType<MemoryFleet['setTarget']> {
    if (name === 'web-1') throw new RefusedError(passedOn('it has no balloon: add one'));
    return super.setTarget(name, target);
  }
}

void t.test('set for VMs by a pattern, by their band, and for all', async (t) => {
  const { ctl, targets } = await serve(t);
  const some = await ctl('set', 'web-*', '--memory', '75%');
  t.same(some, {
    code: 0,
    stderr: '',
    stdout:
      'web-1: balloon target 1 GiB (the guest keeps 3 GiB), it holds 0 B now\nweb-2: balloon target 1 GiB (the guest keeps 3 GiB), it holds 0 B now\n',
  });
  t.same(targets(), { 'web-1': 1, 'web-2': 1, 'db-1': 0, 'build-7': 0 });
  const { stdout } = await ctl('set', '--band', 'bronze', '--balloon', '2G', '--json');
  t.match(JSON.parse(stdout), [{ name: 'build-7', balloon: { targetBytes: 2 * GIB } }], 'an array');
  t.equal((await ctl('set', '--all', '--balloon=+1G')).code, 0);
  t.same(targets(), { 'web-1': 2, 'web-2': 2, 'db-1': 1, 'build-7': 3 }, 'each from its own target');
  t.equal((await ctl('set', 'web-?', '--band', 'gold', '--balloon', '0')).code, 1, 'both have to match');
});

void t.test('what names no VM, or says two things, is refused', async (t) => {
  const { ctl, targets } = await serve(t);
  t.match(await ctl('set', 'x-*', '--balloon', '1G'), {
    code: 1,
    stderr: 'balloonctl: no VM matches "x-*": see balloonctl list\n',
  });
  t.match(await ctl('set', '--band', 'none', '--balloon', '1G'), {
    code: 1,
    stderr: /no VM is in the band "none"/,
  });
  for (const [args, why] of [
    [['set', '--balloon', '1G'], /set needs VM, --band BAND or --all/],
    [['limit', '--high', '1G'], /limit needs VM/],
    [['inhibit'], /inhibit needs VM/],
    [['wait'], /wait needs VM/],
    [['set', 'web-1', '--all', '--balloon', '1G'], /--all cannot be used with VM or --band/],
    [['set', 'web-1', '--balloon', '1G', '--wait', '--dry-run'], /--wait cannot be used with --dry-run/],
  ] as const)
    t.match(await ctl(...args), { code: 2, stderr: why });
  t.same(targets(), { 'web-1': 0, 'web-2': 0, 'db-1': 0, 'build-7': 0 });
});

void t.test('a VM that refuses keeps no other VM from its target', async (t) => {
  const { ctl, targets } = await serve(t, new PartlyRefusing(...views()));
  const { code, stdout, stderr } = await ctl('set', '--all', '--balloon', '1G');
  t.equal(code, 1);
  t.equal(stderr, 'balloonctl: 1 of 4 VMs: web-1: it has no balloon: add one\n');
  t.equal(stdout.trim().split('\n').length, 3);
  t.same(targets(), { 'web-1': 0, 'web-2': 1, 'db-1': 1, 'build-7': 1 });
});

void t.test('set --wait waits for all, and says which are late', async (t) => {
  const { ctl, fleet } = await serve(t);
  fleet.inflate('web-1', GIB);
  const late = await ctl('set', 'web-*', '--balloon', '1G', '--wait', '--timeout', '0.3');
  t.match(late, { code: 4, stderr: /^balloonctl: 1 of 2 VMs: web-2 holds 0 B of 1 GiB after 0\.3 s: / });
  fleet.inflate('web-2', GIB);
  t.match(await ctl('set', 'web-*', '--balloon', '1G', '--wait'), {
    code: 0,
    stdout: /web-1: .*, reached\nweb-2: .*, reached\n$/,
  });
});

void t.test('set --dry-run says what would be, and sets nothing', async (t) => {
  const { ctl, targets } = await serve(t);
  const { code, stdout } = await ctl('set', '--all', '--memory', '1G', '--dry-run');
  t.equal(code, 0);
  t.match(stdout, /^web-1: would be: balloon target 3 GiB \(the guest keeps 1 GiB\), now 0 B\n/);
  const one = JSON.parse(
    (await ctl('set', 'db-1', '--balloon', '1G', '--dry-run', '--json')).stdout,
  ) as VmView;
  t.equal(one.balloon.targetBytes, GIB);
  t.same(targets(), { 'web-1': 0, 'web-2': 0, 'db-1': 0, 'build-7': 0 });
});

void t.test('inhibit, allow and limit for many', async (t) => {
  const { ctl, fleet } = await serve(t);
  const inhibited = (): string[] =>
    fleet.list().flatMap((vm) => (vm.inhibited === null ? [] : [`${vm.name} ${vm.inhibited}`]));
  t.equal((await ctl('inhibit', 'web-*', '--reason', 'backup')).code, 0);
  t.same(inhibited(), ['web-1 backup', 'web-2 backup']);
  t.equal((await ctl('allow', '--all')).code, 0);
  t.same(inhibited(), []);
  t.equal((await ctl('limit', '--band', 'gold', '--high', 'follow')).code, 0);
  t.same(
    fleet.list().map(({ limits }) => limits.high),
    [null, null, 'follow', null],
  );
});

void t.test('list is filtered, and printed in each form', async (t) => {
  const { ctl, fleet } = await serve(t);
  fleet.put(vmView('away', { state: 'connected', kind: 'qmp' }));
  const names = async (...args: string[]): Promise<string[]> =>
    (await ctl('list', '-o', 'name', ...args)).stdout.split('\n').slice(0, -1);
  t.same(await names(), [...NAMES, 'away']);
  t.same(await names('web-*'), ['web-1', 'web-2']);
  t.same(await names('db-1'), ['db-1']);
  t.same(await names('--band', 'gold'), ['db-1']);
  t.same(await names('--state', 'connected'), ['away']);
  t.same(await names('--kind', 'vhost-user', '--band', 'bronze'), ['build-7']);
  t.same(await names('none-*'), []);
  t.match(
    (await ctl('list', 'none-*', '--state', 'running')).stdout,
    /^no VM matches "none-\*" and is running: /,
  );
  const wide = (await ctl('list', 'db-1', '--output', 'wide')).stdout.split('\n');
  t.match(wide[0], /^VM +STATE +RAM .* ON HOST +BAND +POLICY +KIND +PID$/);
  t.match(wide[1], /^db-1 .* 2 GiB +gold +auto +vhost-user +4242$/);
  fleet.put(vmView('db-1', { verdict: 'something is wrong: mend it' }));
  const rows = await ctl('list', 'db-1', '--no-headers');
  t.match(rows.stdout, /^db-1 +running [^\n]*\n$/, 'neither head nor verdict');
  t.match(JSON.parse((await ctl('list', 'web-*', '-o', 'json')).stdout), [
    { name: 'web-1' },
    { name: 'web-2' },
  ]);
  t.match(await ctl('list', '-o', 'tall'), {
    code: 2,
    stderr: /--output: write one of table, wide, name, json/,
  });
});

void t.test('wait returns when VMs run, are at their targets, or are gone', async (t) => {
  const { ctl, fleet } = await serve(t);
  t.match(await ctl('wait', 'web-1'), { code: 0, stdout: 'web-1: running\n' });
  let looks = 0;
  const list = fleet.list.bind(fleet);
  fleet.list = () => {
    if (++looks === 3) fleet.put(vmView('late-1'));
    return list();
  };
  t.match(await ctl('wait', 'late-*', '--for', 'running'), { code: 0, stdout: 'late-1: running\n' });
  t.ok(looks >= 3, 'it waited for a VM that was not there');
  const late = vmView('late-1', { balloon: { ...vmView('late-1').balloon, targetBytes: GIB } });
  fleet.put(late);
  const waits = ['wait', 'late-1', '--for', 'target', '--timeout', '0.2'];
  t.match(await ctl(...waits), {
    code: 4,
    stdout: '',
    stderr: /^balloonctl: late-1 holds 0 B of 1 GiB after 0\.2 s: see/,
  });
  fleet.inflate('late-1', GIB);
  t.match(await ctl(...waits), { code: 0, stdout: 'late-1: reached its target of 1 GiB\n' });
  const gone = ['wait', 'late-1', '--for', 'gone', '--timeout', '0.2'];
  t.match(await ctl(...gone), { code: 4, stderr: /late-1 is running after 0\.2 s/ });
  fleet.remove('late-1');
  t.match(await ctl(...gone), { code: 0, stdout: 'no VM matches "late-1"\n' });
  t.match(await ctl('wait', 'late-1', '--timeout', '0'), {
    code: 4,
    stderr: /no VM matches "late-1" after 0 s/,
  });
});

void t.test('apply brings VMs to a file, and changes nothing when it is applied again', async (t) => {
  const { ctl, fleet, targets } = await serve(t);
  const file = join(temporaryFolder(t), 'targets.toml');
  writeFileSync(
    file,
    `[[vm]]
match = "*-1"
memory = "75%"

[[vm]]
match = "db-*"
balloon = "2G"
high = "follow"

[[vm]]
match = "nobody-*"
memory = "1G"
`,
  );
  t.match(
    (await ctl('apply', '-f', file, '--dry-run')).stdout,
    /would be: web-1: .*\n2 VMs would be changed, 0/s,
  );
  t.same(targets(), { 'web-1': 0, 'web-2': 0, 'db-1': 0, 'build-7': 0 });
  const first = await ctl('apply', '--file', file);
  t.match(first, { code: 0, stderr: '' });
  t.match(first.stdout, /^web-1: balloon target 1 GiB \(the guest keeps 3 GiB\)/m);
  t.match(first.stdout, /^db-1: limits high follow$/m);
  t.match(first.stdout, /no VM matches "nobody-\*"\n2 VMs changed, 0 as the file has them\n$/);
  t.same(targets(), { 'web-1': 1, 'web-2': 0, 'db-1': 2, 'build-7': 0 }, 'the last table that matches holds');
  const orders = fleet.list().map(({ orders: [order] }) => order?.since);
  t.equal(
    (await ctl('apply', '--file', file)).stdout,
    'no VM matches "nobody-*"\n0 VMs changed, 2 as the file has them\n',
  );
  t.same(
    fleet.list().map(({ orders: [order] }) => order?.since),
    orders,
    'no order was given again',
  );
  await ctl('set', 'web-1', '--balloon', '0');
  const again = JSON.parse((await ctl('apply', '-f', file, '--json')).stdout) as unknown;
  t.match(again, { changed: [{ name: 'web-1' }], unchanged: ['db-1'], unmatched: ['nobody-*'] });
});

void t.test('a file with a mistake changes nothing, and the line says where it is', async (t) => {
  const { ctl, targets } = await serve(t);
  const file = join(temporaryFolder(t), 'targets.toml');
  const good = '[[vm]]\nmatch = "*"\nmemory = "1G"\n';
  for (const [text, why] of [
    [`${good}[[vm]\n`, /targets\.toml:4:\d+: /],
    [`${good}[[vm]]\nmatch = "a"\nmemroy = "1G"\n`, /\[\[vm\]\] 2 has a key memroy: did you mean memory\?/],
    [`${good}[[vm]]\nmemory = "1G"\n`, /\[\[vm\]\] 2 has no match: /],
    [`${good}[[vm]]\nmatch = "a"\nmemory = 7\n`, /memory is no text: /],
    [`${good}[[vm]]\nmatch = "a"\nmemory = "+1G"\n`, /memory is relative: /],
    [`${good}[[vm]]\nmatch = "a"\nmemory = "lots"\n`, /\[\[vm\]\] 2: memory: /],
    [`${good}[[vm]]\nmatch = "a"\nmemory = "1G"\nballoon = "1G"\n`, /cannot be used with/],
    [`${good}[policy]\nmode = "auto"\n`, /has a key policy: /],
    ['vm = 7\n', /vm is no array of tables/],
  ] as const) {
    writeFileSync(file, text);
    t.match(await ctl('apply', '-f', file), { code: 1, stderr: why }, text);
  }
  t.match(await ctl('apply', '-f', `${file}.none`), { code: 1, stderr: /ENOENT.*give the path/ });
  t.match(await ctl('apply'), { code: 2, stderr: /apply needs --file FILE/ });
  t.same(targets(), { 'web-1': 0, 'web-2': 0, 'db-1': 0, 'build-7': 0 });
});

void t.test('the mode of the policy is set at run time, and auto can be tried without', async (t) => {
  const { ctl, fleet } = await serve(t);
  t.equal(
    (await ctl('policy', 'mode', 'observe')).stdout,
    'the policy: mode observe: it says what it would do\n',
  );
  fleet.policyAdvice = [
    {
      vm: 'build-7',
      action: 'target',
      fromBytes: 0,
      toBytes: GIB,
      cause: 'host-short',
      says: 'took 1 GiB from build-7 (bronze): the host is short',
    },
  ];
  t.equal(
    (await ctl('policy', 'mode', 'auto', '--dry-run')).stdout,
    'mode auto would have taken 1 GiB from build-7 (bronze): the host is short\n',
  );
  t.equal(fleet.policyState.mode, 'observe', 'nothing changed');
  fleet.policyAdvice = [];
  t.equal((await ctl('policy', 'mode', 'auto', '--dry-run')).stdout, 'mode auto would do nothing now\n');
  t.equal((await ctl('policy', 'mode', 'auto')).stdout, 'the policy: mode auto: it acts\n');
  t.equal((await ctl('policy', 'mode')).stdout, 'the policy: mode auto: it acts\n');
  t.match(await ctl('policy', 'mode', 'on'), {
    code: 2,
    stderr: /write one of observe, auto, off, configured/,
  });
  t.match(await ctl('policy', 'show', '--dry-run'), { code: 2, stderr: /--dry-run is for policy mode auto/ });
});

void t.test('reload --dry-run reads nothing into force', async (t) => {
  const { ctl, daemon } = await serve(t);
  t.match((await ctl('reload', '--dry-run')).stdout, /^would be: control: when the daemon restarts: /);
  t.equal(daemon.reloads, 0);
  await ctl('reload');
  t.equal(daemon.reloads, 1);
});
