// A trace replays the VMs that there were: recorded by the engine, replayed by the simulator, compared by actions.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { GovernedVm, VmFigures } from '../../src/governor/governed-vm.js';
import { PolicyEngine } from '../../src/governor/tick.js';
import { PolicySettings, type PolicyFile } from '../../src/policy/settings.js';
import type { Action } from '../../src/policy/action.js';
import { monotonicNow } from '../../src/os/clock.js';
import { parseTrace, simulateTrace } from '../../src/simulate/trace.js';
import { eventually } from '../support/deadline.js';
import { HostTree } from '../support/host-tree.js';

const MIB = 2 ** 20;
const RAM_BYTES = 256 * MIB;
/** Of the host, which has 512 MiB, two VMs leave less than the reserve. */
const USED_BYTES = 212 * MIB;
const TICKS = 12;
const TICK_SECONDS = 5;

interface RecordedVm {
  readonly figures?: Partial<VmFigures>;
  readonly allocatedBytes?: number;
  readonly manual?: boolean;
}

function governed(name: string, pid: number, { figures, allocatedBytes, manual }: RecordedVm): GovernedVm {
  return {
    name,
    pid,
    ramBytes: RAM_BYTES,
    sharedBytes: RAM_BYTES,
    allocatedBytes: allocatedBytes ?? USED_BYTES,
    limitable: false,
    cgroup: { usage: () => null, watch: () => null, unwatch: () => undefined },
    manual: manual ?? false,
    leftAlone: false,
    figures: {
      state: 'running',
      inhibited: null,
      stats: {
        ageSeconds: 0,
        receivedAt: monotonicNow(),
        values: new Map([['VIRTIO_BALLOON_S_AVAIL', RAM_BYTES - USED_BYTES]]),
      },
      targetBytes: 0,
      actualBytes: 0,
      actualUnknown: false,
      sharesMemory: true,
      deflatesOnOom: true,
      slowness: 0,
      cache: null,
      askable: true,
      pool: null,
      ...figures,
    },
    setPolicyTarget: () => undefined,
    setCacheLimit: () => undefined,
    playing: () => undefined,
    force: () => Promise.resolve(),
  };
}

interface Replay {
  readonly seen: readonly { seconds: number; name: string; action: Action }[];
  /** The kinds of action that the policy wanted for each VM. */
  readonly kinds: Readonly<Record<string, readonly string[]>>;
}

/** Records a host that is short of memory, with these VMs at each tick, and replays it. */
async function replay(
  t: Test,
  vmsAt: (tick: number) => Readonly<Record<string, RecordedVm>>,
): Promise<Replay> {
  const tree = new HostTree(t);
  const record = join(t.testdir(), 'trace.ndjson');
  const file: PolicyFile = { policy: { mode: 'observe', record, hold: 1 } };
  const settings = new PolicySettings(file);
  tree.write('proc/meminfo', 'MemTotal: 524288 kB\nMemAvailable: 8192 kB\n');
  let tick = 0;
  const vms = (): GovernedVm[] =>
    Object.entries(vmsAt(tick)).map(([name, vm], n) => governed(name, 2 ** 22 + n, vm));
  const engine = new PolicyEngine(settings, vms, () => undefined, { paths: tree.paths });
  for (; tick < TICKS; tick++) engine.tick();
  engine.close();
  const recorded = (): string => (existsSync(record) ? readFileSync(record, 'utf8') : '');
  await eventually(() => recorded().split('\n').length > TICKS, recorded);
  const seen: { seconds: number; name: string; action: Action }[] = [];
  // The ticks follow each other at once; the daemon looks every few seconds.
  const trace = parseTrace(recorded()).map((line, n) => ({ ...line, t: TICK_SECONDS * n }));
  simulateTrace(trace, 'balloond', settings, (seconds, name, action) => seen.push({ seconds, name, action }));
  const names = [...new Set(seen.map(({ name }) => name))];
  const kindsOf = (of: string): string[] =>
    [...new Set(seen.filter(({ name }) => name === of).map(({ action }) => action.kind))].sort();
  return { seen, kinds: Object.fromEntries(names.map((name) => [name, kindsOf(name)])) };
}

void t.test('a VM with a page cache balloon has one in the replay', async (t) => {
  const cache = { targetBytes: 0, actualBytes: 0 };
  const { seen, kinds } = await replay(t, () => ({
    plain: {},
    both: { figures: { cache } },
    'cache-alone': { figures: { cache, askable: false, stats: null } },
  }));
  t.same(kinds, { plain: ['target'], both: ['cache-limit', 'target'], 'cache-alone': ['cache-limit'] });
  const limits = seen.filter(({ action }) => action.kind === 'cache-limit');
  t.equal(limits.length, 2, 'each limit is set once, since the replay follows it');
});

void t.test(
  'a VM that an operator, a missing driver or memory on hugetlbfs keeps from the policy is left alone',
  async (t) => {
    const { kinds } = await replay(t, () => ({
      plain: {},
      manual: { manual: true },
      inhibited: { figures: { inhibited: 'migration' } },
      waiting: { figures: { state: 'connected' } },
      // A trace has the VMs in the host's RAM.
      pooled: { figures: { pool: { pageBytes: 2 * MIB, discards: true } } },
    }));
    t.same(kinds, { plain: ['target'] });
  },
);

void t.test('a VM takes up memory, and is asked for memory, only while it is there', async (t) => {
  const others = (tick: number): Record<string, RecordedVm> =>
    tick < 2 ? { 'gone-1': {}, 'gone-2': {} } : {};
  const small = { allocatedBytes: 32 * MIB, figures: { stats: null } };
  const { seen } = await replay(t, (tick) => ({ small, ...others(tick) }));
  const [before, after] = [true, false].map((early) =>
    seen.filter(({ seconds }) => seconds < 2 * TICK_SECONDS === early),
  );
  t.ok(before?.some(({ name }) => name === 'gone-1'));
  const wants = after?.map(({ name, action }) => `${action.reason.cause} of ${name}`);
  t.same([...new Set(wants)], ['refund of small'], 'the host has enough for the VM that stays');
});

void t.test('a trace of an older daemon is read, and one of a newer daemon refused', (t) => {
  const vm = {
    ...{ name: 'old', band: 'gold', ramBytes: 4096, minBytes: 0, maxBytes: 4096, targetBytes: 0 },
    ...{ actualBytes: 0, guestAvailableBytes: null, guestFreeBytes: null, stallPercent: 0, currentBytes: 9 },
  };
  const text = (line: object): string => `${JSON.stringify(line)}\n`.repeat(2);
  const line = { t: 1, totalBytes: 8192, availableBytes: 4096, vms: [vm] };
  t.match(parseTrace(text(line))[0], {
    version: 2,
    vms: [{ flags: ['movable', 'takeable'], cacheLimitBytes: 0, cachedBytes: 0, overheadBytes: 0 }],
  });
  const refusal = (changed: object): string => {
    try {
      parseTrace(text(changed));
      return '';
    } catch (error) {
      return String(error);
    }
  };
  t.match(refusal({ ...line, version: 3 }), /line 1 has version 3 of the format, .* 2 at most: run the/);
  t.match(refusal({ ...line, version: 2 }), /line 1 is no line of a trace/);
  const newer = { ...vm, cacheLimitBytes: 0, cachedBytes: 0, overheadBytes: 0 };
  t.equal(refusal({ ...line, version: 2, vms: [{ ...newer, flags: [] }] }), '');
  t.match(refusal({ ...line, version: 2, vms: [{ ...newer, flags: ['odd'] }] }), /line 1 is no line/);
  t.end();
});
