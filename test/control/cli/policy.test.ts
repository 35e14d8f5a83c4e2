import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { Check } from 'typebox/schema';
import { SCHEMAS, type PolicyState } from '../../../protocol/control/schema.js';
import type { TraceLine } from '../../../protocol/policy-trace.js';
import { POLICY_NAMES } from '../../../src/simulate/planners.js';
import { GIB, serveFleet, temporaryFolder, vmView } from '../../support/fleet.js';

const BALLOONCTL = fileURLToPath(new URL('../../../bin/balloonctl.js', import.meta.url));

function balloonctl(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [BALLOONCTL, ...args], (_, stdout, stderr) => {
      resolve({ code: child.exitCode ?? -1, stdout, stderr });
    });
  });
}

const VM: PolicyState['vms'][number] = {
  name: 'db-1',
  band: 'gold',
  minBytes: GIB,
  maxBytes: 4 * GIB,
  weight: 4,
  mode: 'auto',
  force: 'none',
  said: 'gave 1.2 GiB to db-1 (gold): its guest is short',
  saidAt: '2026-11-23T12:04:00.123Z',
  now: 'the policy asks this VM for nothing more, because the reserve is there: host available 3 GiB, reserve 2 GiB',
};

void t.test('explain says what was last decided, and what holds now', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const ctl = (...args: string[]) => balloonctl('--control', socketPath, 'policy', ...args);
  fleet.policyState = {
    ...fleet.policyState,
    vms: [VM, { ...VM, name: 'new\u001b[2J', said: null, saidAt: null, force: 'high' }],
  };
  t.ok(Check(SCHEMAS.Policy, fleet.policyState));
  t.same(await ctl('explain', 'db-1'), {
    code: 0,
    stderr: '',
    stdout: `db-1 (gold, 1 GiB to 4 GiB): auto\n2026-11-23T12:04:00Z ${VM.said ?? ''}\nnow: ${VM.now}\n`,
  });
  t.same(JSON.parse((await ctl('explain', 'db-1', '--json')).stdout), VM);
  const { stdout } = await ctl('explain', 'new\u001b[2J');
  t.match(
    stdout,
    /^new\S* \(gold, 1 GiB to 4 GiB\): auto, under force \(high\)\nnow: /,
    'nothing was decided yet',
  );
  t.notMatch(stdout, '\u001b', 'names do not command the terminal');
  t.match(await ctl('explain', 'nobody'), { code: 1, stderr: /no VM is called nobody: see balloonctl list/ });
  t.match(await ctl('explain'), { code: 2, stderr: /policy explain needs VM/ });
  t.match(await ctl('improve'), {
    code: 2,
    stderr: /policy: write one of show, mode, pause, resume, explain, simulate/,
  });
  fleet.put(vmView('db-1'));
  t.match((await ctl('pause')).stdout, 'the policy: paused');
  t.match(
    (await ctl('show')).stdout,
    /^mode auto, paused: it does nothing\nthe policy leaves all VMs alone, by the operator since 2026-11-23T12:04:00Z\n {2}to take it back: balloonctl policy resume\nhost unknown\nVM +BAND/,
  );
  t.match(
    (await ctl('resume', 'db-1')).stdout,
    'db-1: resumed; all VMs are still paused: balloonctl policy resume',
  );
  t.match((await ctl('resume')).stdout, 'the policy: resumed');
  t.equal((await ctl('resume', 'db-1')).stdout, 'db-1: resumed\n', 'the balloon is empty');
  const held = vmView('db-1');
  const until = {
    auto: 'the policy changes it',
    manual: 'you change its [[vm]] in the configuration, which has the policy leave the VM alone',
    observe: 'balloonctl set db-1 --balloon SIZE',
    off: 'balloonctl set db-1 --balloon SIZE',
  } as const;
  for (const mode of ['auto', 'manual', 'observe', 'off'] as const) {
    const policy = { band: 'gold', minBytes: 0, maxBytes: GIB, mode };
    fleet.put({ ...held, policy, balloon: { ...held.balloon, targetBytes: GIB } });
    t.equal(
      (await ctl('resume', 'db-1')).stdout,
      `db-1: resumed\nits balloon target is 1 GiB until ${until[mode]}\n`,
      mode,
    );
  }
  fleet.put({ ...held, policy: null, balloon: { ...held.balloon, targetBytes: 0, actualBytes: GIB } });
  t.equal((await ctl('resume', 'db-1')).stdout, 'db-1: resumed\nits balloon gives 1 GiB back to the guest\n');
  const policy = { band: 'gold', minBytes: 0, maxBytes: GIB, mode: 'observe' } as const;
  fleet.put({ ...held, policy, cache: { ...held.balloon, targetBytes: GIB } });
  t.equal(
    (await ctl('resume', 'db-1')).stdout,
    'db-1: resumed\nits page cache balloon may hold up to 1 GiB until balloonctl set db-1 --cache-limit SIZE\n',
  );
  fleet.policyState = { ...fleet.policyState, mode: 'auto' };
  const { totalBytes, availableBytes } = { totalBytes: 8 * GIB, availableBytes: GIB };
  const host = { totalBytes, availableBytes, pressurePercent: null, short: false };
  for (const [part, words] of [
    [false, 'host'],
    [true, 'memory for VMs'],
  ] as const) {
    fleet.policyState = { ...fleet.policyState, host: { ...host, part } };
    t.match((await ctl('show')).stdout, `\n${words} 1 GiB available of 8 GiB`);
  }
  fleet.policyState = { ...fleet.policyState, host: null };
  t.match((await ctl('show')).stdout, /^mode auto: it acts\nhost unknown\nVM +BAND/);
  const pool = {
    pageBytes: 2 * 2 ** 20,
    totalBytes: 4 * GIB,
    availableBytes: GIB / 4,
    reserveBytes: GIB / 2,
  };
  fleet.policyState = { ...fleet.policyState, pools: [{ ...pool, short: true }] };
  t.match(
    (await ctl('show')).stdout,
    /\nhost unknown\npool of 2 MiB pages 256 MiB available of 4 GiB, reserve 512 MiB: short\nVM +BAND/,
  );
});

/** What a daemon with two VMs would record in ten minutes: the host is short from the fifth on. */
function trace(): TraceLine[] {
  return Array.from({ length: 60 }, (_, n) => ({
    version: 2,
    t: 1_800_000_000 + 10 * n,
    totalBytes: 8 * GIB,
    availableBytes: n < 30 ? 4 * GIB : GIB / 2,
    vms: ['gold-1', 'bronze-1'].map((name) => ({
      name,
      band: name.replace(/-1$/, ''),
      flags: ['movable', 'takeable'],
      ramBytes: 4 * GIB,
      minBytes: GIB,
      maxBytes: 4 * GIB,
      targetBytes: 0,
      actualBytes: 0,
      cacheLimitBytes: 0,
      cachedBytes: 0,
      overheadBytes: 0,
      guestAvailableBytes: n < 30 ? 3 * GIB : GIB / 2,
      guestFreeBytes: GIB / 4,
      stallPercent: 0,
      currentBytes: n < 30 ? 2 * GIB : 3.75 * GIB,
    })),
  }));
}

void t.test('simulate replays a trace, beside other policies, and draws it', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'trace.ndjson');
  const lines = trace();
  writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  const config = join(folder, 'balloond.toml');
  writeFileSync(
    config,
    '[policy]\n' +
      ['gold', 'bronze'].map((name) => `[[policy.band]]\nname = "${name}"\nmatch = ["${name}-*"]\n`).join(''),
  );
  const plot = join(folder, 'plot.svg');
  const simulate = (...args: string[]) => balloonctl('policy', 'simulate', ...args);
  const told = await simulate('--trace', file, '--config', config, '--compare', '--plot', plot);
  t.equal(told.code, 0, told.stderr);
  for (const policy of POLICY_NAMES) t.match(told.stdout, new RegExp(`^${policy} +\\d`, 'm'));
  t.match(told.stdout, /^policy +gold stalled +bronze stalled +weighted work +host out of memory/);
  t.equal(readFileSync(plot, 'utf8').match(/<polyline /g)?.length, 3 * POLICY_NAMES.length, 'three panels');

  const { stdout } = await simulate('--trace', file, '--config', config, '--compare', '--json');
  const { bands, outcomes } = JSON.parse(stdout) as {
    bands: string[];
    outcomes: { policy: string; vmSteps: number; changesPerVmHour: number; stallShare: number[] }[];
  };
  t.same(bands, ['gold', 'bronze']);
  t.same(
    outcomes.map(({ policy }) => policy),
    POLICY_NAMES,
  );
  for (const { vmSteps } of outcomes) t.equal(vmSteps, 2 * lines.length);
  const [ours] = outcomes;
  t.ok((ours?.changesPerVmHour ?? 0) > 0, 'the same plan() acted on it');
  t.ok((ours?.stallShare[0] ?? 1) <= (ours?.stallShare[1] ?? 0), 'bronze does not wait less than gold');
  const again = JSON.parse(
    (await simulate('--trace', file, '--config', config, '--compare', '--json')).stdout,
  ) as { outcomes: unknown };
  t.same(again.outcomes, outcomes, 'the same every time');
});

void t.test('simulate says what is wrong with what it is given', async (t) => {
  const file = join(temporaryFolder(t), 'trace.ndjson');
  const [line] = trace();
  const whole = JSON.stringify(line);
  const failure = async (...args: string[]): Promise<[number, string]> => {
    const { code, stderr } = await balloonctl('policy', 'simulate', ...args);
    return [code, stderr];
  };
  const ofTrace = async (text: string): Promise<[number, string]> => {
    writeFileSync(file, text);
    return failure('--trace', file);
  };
  t.match(await ofTrace(whole), [1, /at least two lines: let the daemon record for longer/]);
  t.match(await ofTrace(`${whole}\n{"t":1,`), [1, /line 2 is not JSON/]);
  t.match(await ofTrace(`${whole}\nnull\n`), [1, /line 2 is no line of a trace/]);
  t.match(await ofTrace(`${whole}\n${JSON.stringify({ ...line, vms: [null] })}\n`), [1, /line 2 is no line/]);
  t.match(await ofTrace(`${whole}\n${JSON.stringify({ ...line, totalBytes: 0 })}\n`), [
    1,
    /line 2 is no line/,
  ]);
  t.match(await failure('--trace', `${file}.none`), [1, /ENOENT/]);
  t.match(await failure(), [2, /needs --trace FILE or --synthetic N/]);
  t.match(await failure('--trace', file, '--synthetic', '3'), [2, /needs --trace FILE or --synthetic N/]);
});

void t.test('synthetic fleets are the same for the same seed, and as many as asked for', async (t) => {
  const run = async (...args: string[]): Promise<{ outcomes: { vmSteps: number; policy: string }[] }> => {
    const { stdout, stderr } = await balloonctl('policy', 'simulate', '--hours', '1', '--json', ...args);
    t.equal(stderr, '');
    return JSON.parse(stdout) as { outcomes: { vmSteps: number; policy: string }[] };
  };
  const one = await run('--synthetic', '60', '--vms-per-host', '25');
  t.match(one.outcomes, [{ policy: 'balloond', vmSteps: 60 * 360 }]);
  const two = await run('--synthetic', '60', '--vms-per-host', '25');
  t.same(two.outcomes, one.outcomes);
  const other = await run('--synthetic', '60', '--vms-per-host', '25', '--seed', '2');
  t.notSame(other.outcomes, one.outcomes);
  const survey = await balloonctl(
    ...['policy', 'simulate', '--synthetic', '1', '--hours', '1', '--capacity', '--seeds', '2'],
    ...['--host-memory', '16G'],
  );
  t.equal(survey.code, 0, survey.stderr);
  t.match(survey.stdout, /^fleet +policy +VMs a host, median of 2 +range +weighted work +range\n/);
  t.equal(survey.stdout.trim().split('\n').length, 1 + 2 * POLICY_NAMES.length);
});
