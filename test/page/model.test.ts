import t from 'tap';
import { LIVE_TICKS, type LiveTick, type LiveVm } from '../../protocol/control/live.js';
import { History, hostLayers, sparkline } from '../../src/page/model.js';

function vm(name: string, allocatedBytes: number, band: string | null = null): LiveVm {
  return {
    name,
    state: 'running',
    band,
    ramBytes: 100,
    targetBytes: 0,
    actualBytes: 100 - allocatedBytes,
    actualUnknown: false,
    cacheBytes: null,
    allocatedBytes,
    verdict: null,
  };
}

function tick(time: number, ...vms: LiveVm[]): LiveTick {
  return { time, hostTotalBytes: 1000, hostAvailableBytes: 400, vms };
}

void t.test('a history has the last ticks, each once, and nothing of VMs that are gone', (t) => {
  const history = new History();
  for (let again = 0; again < 2; again++) {
    for (let time = 1; time <= LIVE_TICKS + 5; time++) {
      history.add(tick(time, vm('stays', time), ...(time < 50 ? [vm('goes', 1)] : [])));
    }
  }
  t.same(
    history.ticks.map(({ time }) => time),
    Array.from({ length: LIVE_TICKS }, (_, n) => n + 6),
  );
  const series = history.series(({ allocatedBytes }) => allocatedBytes);
  t.same([...series.keys()], ['stays']);
  t.same(series.get('stays')?.at(-1), { time: LIVE_TICKS + 5, value: LIVE_TICKS + 5 });
  t.equal(series.get('stays')?.length, LIVE_TICKS);
  t.end();
});

void t.test('the memory of the host is that of VMs by band, and the rest', (t) => {
  const layers = hostLayers([
    tick(0, vm('a', 100, 'silver'), vm('b', 50, 'gold')),
    tick(10, vm('a', 200, 'silver'), vm('c', 100, 'silver'), vm('b', 500, 'gold')),
  ]);
  t.same(
    layers.map(({ label, points }) => [label, ...points.map(({ value }) => value)]),
    [
      ['VMs in gold', 50, 500],
      ['VMs in silver', 100, 300],
      // Shared memory that is in use twice, or a host that counts later, is no less than nothing.
      ['the rest', 450, 0],
    ],
  );
  t.equal(layers[0]?.path, 'M0 152L1000 80L1000 160L0 160Z');
  t.equal(layers[1]?.path, 'M0 136L1000 32L1000 80L0 152Z', 'on top of the one before');
  t.same(hostLayers([]), []);
  t.equal(hostLayers([tick(5, vm('a', 1))])[0]?.label, 'VMs');
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
