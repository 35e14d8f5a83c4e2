import t from 'tap';
import {
  LIVE_TICKS,
  SAMPLE_MS,
  SAMPLES,
  vmSeries,
  type LiveTick,
  type LiveVm,
} from '../../protocol/control/live.js';
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { markOf, Marks } from '../../src/page/marks.js';
import {
  badgesOf,
  hostLayers,
  reserveBegins,
  Hour,
  isShown,
  sorted,
  sparkline,
  Ticks,
} from '../../src/page/model.js';

function vm(name: string, allocatedBytes: number, change: Partial<LiveVm> = {}): LiveVm {
  return {
    name,
    kind: 'vhost-user',
    state: 'running',
    band: null,
    mode: 'auto',
    force: 'none',
    inhibited: null,
    ramBytes: 100,
    targetBytes: 0,
    actualBytes: 100 - allocatedBytes,
    actualUnknown: false,
    cacheBytes: null,
    allocatedBytes,
    availableBytes: null,
    workingSetBytes: null,
    refilledBytes: 0,
    verdict: null,
    ...change,
  };
}

function tick(time: number, ...vms: LiveVm[]): LiveTick {
  const policy = {
    mode: 'auto',
    paused: false,
    bands: ['gold', 'silver'],
    reserveBytes: 100,
    part: null,
    pressurePercent: null,
  } as const;
  return { time, hostTotalBytes: 1000, hostAvailableBytes: 400, policy, vms };
}

const ofHost = (name: string): boolean => /^(host|band) /.test(name);

void t.test('the ticks are the last ones, each once, and nothing of VMs that are gone', (t) => {
  const ticks = new Ticks();
  for (let again = 0; again < 2; again++) {
    for (let time = 1; time <= LIVE_TICKS + 5; time++) {
      ticks.add(tick(time, vm('stays', time), ...(time < 50 ? [vm('goes', 1)] : [])));
    }
  }
  t.same(
    ticks.all.map(({ time }) => time),
    Array.from({ length: LIVE_TICKS }, (_, n) => n + 6),
  );
  t.equal(ticks.add(tick(LIVE_TICKS + 5)), false, 'it came before');
  const series = ticks.series(({ allocatedBytes }) => allocatedBytes);
  t.same([...series.keys()], ['stays']);
  t.same(series.get('stays')?.at(-1), { time: LIVE_TICKS + 5, value: LIVE_TICKS + 5 });
  t.equal(series.get('stays')?.length, LIVE_TICKS);
  t.end();
});

void t.test('an hour is that of the daemon, and the present behind it', (t) => {
  const own = vmSeries('allocated', 'a');
  const hour = new Hour((name) => name.endsWith(' a'));
  const begin = 1_000_000_000;
  for (const second of [0, 2, 4, 6, 8, 10, 12, 14]) hour.add(tick(begin + second * 1000, vm('a', second)));
  t.same(
    hour.times.map((time) => time - begin),
    [0, 10_000, 14_000],
    'one each ten seconds, and the newest',
  );
  t.same(hour.values(own), [0, 10, 14]);
  hour.load({
    times: [begin - 20_000, begin - 10_000, begin + 5000],
    series: { [own]: [7, null, 9], 'working a': [1, 2, 3] },
  });
  t.same(
    hour.times.map((time) => time - begin),
    [-20_000, -10_000, 0, 10_000, 14_000],
    'each moment once',
  );
  t.same(hour.values(own), [7, null, 0, 10, 14]);
  t.same(hour.values('working a'), [1, 2, null, null, null]);
  t.equal(hour.has('working a'), true);
  t.equal(hour.has('cache a'), false);
  t.same(hour.values('none'), [null, null, null, null, null]);
  t.notOk(hour.names.some(ofHost), 'what was not wanted is left out');
  for (let n = 2; n < SAMPLES + 50; n++) hour.add(tick(begin + n * SAMPLE_MS, vm('a', 1)));
  t.ok(hour.times.length <= SAMPLES + 1, `${hour.times.length} samples`);
  t.ok((hour.times[0] ?? 0) > (hour.times.at(-1) ?? 0) - SAMPLES * SAMPLE_MS);
  t.equal(hour.values(own).length, hour.times.length);
  t.end();
});

void t.test(
  'the reserve begins where the memory in use reaches it, of the host or of the part that VMs may have',
  (t) => {
    const hour = new Hour(ofHost);
    hour.add(tick(0.5));
    const ofPart = { totalBytes: 500, availableBytes: 150 };
    const { policy, ...rest } = tick(2 * SAMPLE_MS);
    hour.add({ ...rest, policy: { ...policy, part: ofPart } });
    hour.add({ ...tick(3 * SAMPLE_MS), policy: { ...policy, reserveBytes: null } });
    // 600 of 1000 are in use; the reserve is 100. VMs may use 150 more, and 50 until the reserve begins.
    t.same(reserveBegins(hour), [900, 650, null]);
    t.end();
  },
);

void t.test('the memory of the host is that of VMs by band, highest first, and the rest', (t) => {
  const hour = new Hour(ofHost);
  hour.add(tick(0.5, vm('a', 100, { band: 'silver' }), vm('b', 50, { band: 'gold' }), vm('x', 7)));
  hour.add(
    tick(
      SAMPLE_MS,
      vm('a', 200, { band: 'silver' }),
      vm('c', 100, { band: 'silver' }),
      vm('b', 500, { band: 'gold' }),
    ),
  );
  const layers = hostLayers(hour, ['gold', 'silver', 'bronze']);
  t.same(
    layers.map(({ label, colour, values, tops }) => [label, colour, values, tops]),
    [
      ['VMs in gold', 0, [50, 500], [50, 500]],
      ['VMs in silver', 1, [100, 300], [150, 800]],
      ['VMs', 3, [7, 0], [157, 800]],
      // Shared memory that is in use twice, or a host that counts later, is no less than nothing.
      ['other programs', null, [443, 0], [600, 800]],
    ],
  );
  t.same(hostLayers(new Hour(ofHost), []), []);
  t.end();
});

void t.test('VMs are sorted by each column, and in their natural order where that says nothing', (t) => {
  const vms = [
    vm('web-10', 5, { band: 'bronze', availableBytes: 3 }),
    vm('web-2', 9, { band: 'gold', state: 'stopped' }),
    vm('db-1', 5, { band: 'silver', ramBytes: 300, targetBytes: 50 }),
    vm('app', 1),
  ];
  const names = (key: Parameters<typeof sorted>[1]['key'], descending = false): string[] =>
    sorted(vms, { key, descending }, ['gold', 'silver', 'bronze']).map(({ name }) => name);
  t.same(names('name'), ['app', 'db-1', 'web-2', 'web-10']);
  t.same(names('name', true), ['web-10', 'web-2', 'db-1', 'app']);
  t.same(names('host', true), ['web-2', 'db-1', 'web-10', 'app']);
  t.same(names('band'), ['web-2', 'db-1', 'web-10', 'app'], 'a VM without a band last');
  t.same(names('memory', true)[0], 'db-1');
  t.same(names('target', true)[0], 'db-1');
  t.same(names('balloon')[0], 'web-2');
  t.same(names('available', true)[0], 'web-10');
  t.same(names('state', true)[0], 'web-2');
  t.end();
});

void t.test('what an operator should see of a VM is a badge, and a filter finds it', (t) => {
  const calm = vm('calm', 1);
  t.same(badgesOf(calm), []);
  const all = vm('busy', 1, { inhibited: 'backup', mode: 'manual', force: 'high', refilledBytes: 4096 });
  t.same(
    badgesOf(all).map(({ kind, text }) => [kind, text]),
    [
      ['inhibited', 'inhibited'],
      ['paused', 'manual'],
      ['forced', 'forced (high)'],
      ['refilled', 'refilled'],
    ],
  );
  t.match(badgesOf(all)[0]?.title, 'backup');
  t.same(
    badgesOf(vm('p', 1, { mode: 'paused' })).map(({ text }) => text),
    ['paused'],
  );
  const none = { text: '', band: '', notable: false };
  t.equal(isShown(calm, none), true);
  t.equal(isShown(calm, { ...none, text: ' AL' }), true, 'in either case of letters');
  t.equal(isShown(calm, { ...none, text: 'x' }), false);
  t.equal(isShown(calm, { ...none, band: 'gold' }), false);
  t.equal(isShown(vm('g', 1, { band: 'gold' }), { ...none, band: 'gold' }), true);
  t.equal(isShown(calm, { ...none, notable: true }), false);
  t.equal(isShown(all, { ...none, notable: true }), true);
  t.equal(isShown(vm('w', 1, { verdict: 'mend it' }), { ...none, notable: true }), true);
  t.end();
});

void t.test('what the policy did is marked where and when it did it', (t) => {
  const event = (event: DaemonEvent['event'], seconds: number, vm: string): DaemonEvent => ({
    seq: 1,
    epoch: '0',
    id: '0-1',
    time: new Date(seconds * 1000).toISOString(),
    event,
    level: 'info',
    message: event,
    fields: {},
    vm,
  });
  t.equal(markOf(event('vm-ready', 1, 'a')), null);
  const marks = new Marks();
  for (const each of [
    event('policy-took', 10, 'a'),
    event('policy-gave', 20, 'b'),
    event('policy-forced', 30, 'a'),
  ]) {
    const mark = markOf(each);
    if (mark !== null) marks.add(mark);
  }
  t.same(
    marks.of(null).map(({ kind, vm, time }) => [kind, vm, time]),
    [
      ['took', 'a', 10_000],
      ['gave', 'b', 20_000],
      ['forced', 'a', 30_000],
    ],
  );
  t.same(
    marks.of('a').map(({ kind }) => kind),
    ['took', 'forced'],
  );
  t.same(
    marks.near(null, 18_000, 5000).map(({ kind }) => kind),
    ['gave'],
  );
  const late = markOf(event('policy-gave', 3620, 'a'));
  if (late !== null) marks.add(late);
  t.same(
    marks.of('a').map(({ time }) => time),
    [30_000, 3_620_000],
    'no longer than an hour',
  );
  marks.clear();
  t.same(marks.of(null), []);
  t.end();
});

void t.test('a line goes from left to right, and no higher than its box', (t) => {
  const points = [
    { time: 10, value: 0 },
    { time: 15, value: 50 },
    { time: 20, value: 400 },
  ];
  t.equal(sparkline(points, 10, 20, 100, 100, 20), 'M0 20L50 10L100 0');
  t.equal(sparkline([], 0, 0, 0, 100, 20), '');
  t.equal(sparkline([{ time: 5, value: 0 }], 5, 5, 0, 100, 20), 'M0 20');
  t.end();
});
