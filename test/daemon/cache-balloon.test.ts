// The rules that protect a VM with a page cache balloon, seen from a VMM and a guest that stand in for QEMU and Linux.
import { VmFleet } from '../../src/daemon/fleet.js';
import { deviceOptions, type SocketSettings } from '../../src/daemon/settings.js';
import { decodeVmRecord } from '../../src/vm/record.js';
import type { DeviceOptions } from '../../src/vm/kinds.js';
import { StateFile } from '../../src/memory/state-file.js';
import { EventLog } from '../../src/ops/event-log.js';
import { closeFd, duplicateFd } from '../../src/os/fd.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { socketPair } from '../../src/os/socket.js';
import { NamedFds } from '../fuzz/named-fds.js';
import { until } from '../fuzz/fuzzer.js';
import {
  ALL_CACHE_FEATURES,
  CACHE_CONFIG,
  CACHE_CONFIG_BYTES,
  CACHE_F,
  CacheDriver,
  frames,
  NO_CACHE_FEATURES,
  pages,
  ranges,
  type Block,
} from '../support/cache-driver.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { HostTree } from '../support/host-tree.js';
import { F_VERSION_1 } from '../support/guest-ring.js';
import { parseMetrics } from '../support/metric-samples.js';
import { pfns, serveDevice, ServedVm } from '../support/served-vm.js';
import { bits } from '../support/wire.js';

const FIRST = 4096;
const RAM_PAGES = (64 * 2 ** 20) / PAGE_BYTES;
const OPTIONS: DeviceOptions = {
  ...deviceOptions({}, { path: '/cache', device: 'cache-balloon' }, 'vm'),
  statsIntervalSeconds: 0,
};
const SPACE = { queueCount: 2, configBytes: CACHE_CONFIG_BYTES };

const whereAll = eachOrder({ features: ALL_CACHE_FEATURES });

interface Running {
  served: ServedVm;
  frontend: Frontend;
  driver: CacheDriver;
}

async function running(features = ALL_CACHE_FEATURES): Promise<Running> {
  const served = new ServedVm({ ...OPTIONS, frontend: SPACE });
  await served.frontend.connect();
  const driver = await CacheDriver.start(served.frontend, features);
  await served.until((view) => view.state === 'running', 'the device runs');
  return { served, frontend: served.frontend, driver };
}

function nothing(): void {
  return;
}

function fill(ram: GuestRam, numbers: readonly number[], seed: number): void {
  for (const pfn of numbers) ram.fillPage(pfn, seed);
}

for (const [name, features, block] of [
  ['of 2012', NO_CACHE_FEATURES, null],
  ['with RANGES', bits(F_VERSION_1, CACHE_F.RANGES), 6],
  ['with all features', ALL_CACHE_FEATURES, 6],
] as const) {
  eachOrder({ features })(
    `a driver ${name}: pages are gone before the ack, and its own after it`,
    async (t) => {
      const { served, frontend, driver } = await running(features);
      for (let round = 0; round < 30; round++) {
        const first = FIRST + 64 * round;
        const taken = pfns(first, 64);
        fill(frontend.ram, taken, round);
        const blocks: Block[] = block === null ? pages(first, 64) : [{ pfn: first, order: block }];
        const before = frontend.ram.allocatedBytes();
        await driver.add(blocks);
        const gone = before - frontend.ram.allocatedBytes();
        // Rings and buffers come into being in the first round.
        if (gone !== 64 * PAGE_BYTES && round > 0) t.fail(`acked with ${gone} bytes discarded`);
        if (!taken.every((pfn) => frontend.ram.pageIsZero(pfn))) t.fail('acked, not discarded');
        // Reclaim says nothing.
        fill(frontend.ram, taken, round + 100);
        await served.settle();
        if (!taken.every((pfn) => frontend.ram.pageHolds(pfn, round + 100))) t.fail('lost after reclaim');
      }
      const { balloon, verdict } = served.view;
      t.equal(balloon.inflatedBytesTotal, 30 * 64 * PAGE_BYTES);
      t.equal(balloon.discardedBytesTotal, 30 * 64 * PAGE_BYTES);
      t.equal(balloon.pendingBytes, 0);
      t.equal(verdict, null);
      await served.close();
    },
  );
}

whereAll('what is told as reclaimed is counted, and touches nothing', async (t) => {
  const { served, frontend, driver } = await running();
  await driver.add([{ pfn: FIRST, order: 9 }]);
  t.equal(served.view.balloon.actualBytes, 512 * PAGE_BYTES);
  fill(frontend.ram, pfns(FIRST, 512), 3);
  await driver.reclaimed([{ pfn: FIRST, order: 8 }, ...pages(FIRST + 256, 3)]);
  await driver.reclaimed([{ pfn: FIRST, order: 8 }]);
  t.equal(served.view.balloon.actualBytes, (512 - 259) * PAGE_BYTES, 'told twice, counted once');
  t.ok(pfns(FIRST, 512).every((pfn) => frontend.ram.pageHolds(pfn, 3)));
  await driver.add([{ pfn: FIRST, order: 8 }]);
  t.ok(pfns(FIRST, 256).every((pfn) => frontend.ram.pageIsZero(pfn)));
  t.ok(pfns(FIRST + 256, 256).every((pfn) => frontend.ram.pageHolds(pfn, 3)));
  await served.close();
});

inEachOrder('of 2012: the limit, `actual` and statistics go through the config space', async (t) => {
  const { served, frontend, driver } = await running(NO_CACHE_FEATURES);
  served.vm.setTarget({ cacheLimitBytes: 1000 * PAGE_BYTES });
  await frontend.waitConfigChanges(1);
  t.equal(await driver.read(CACHE_CONFIG.numPages), 1000);
  await driver.add(pages(FIRST, 256));
  await driver.write(CACHE_CONFIG.actual, 256);
  await served.until(({ balloon }) => balloon.actualBytes === 256 * PAGE_BYTES, 'actual is taken');
  const asked = served.device.refreshStats(5000);
  await frontend.waitConfigChanges(2);
  t.equal(await driver.read(CACHE_CONFIG.needStats), 1);
  await driver.write(CACHE_CONFIG.pagesTotal, RAM_PAGES);
  await driver.write(CACHE_CONFIG.pagesFree, 7);
  await driver.write(CACHE_CONFIG.needStats, 0);
  t.ok(await asked);
  t.match(served.view.stats, {
    VIRTIO_BALLOON_S_MEMTOT: RAM_PAGES * PAGE_BYTES,
    VIRTIO_BALLOON_S_MEMFREE: 7 * PAGE_BYTES,
  });
  t.equal(await driver.read(CACHE_CONFIG.numPages), 1000, 'the limit is not the driver’s to set');
  await served.close();
});

whereAll('inhibited: nothing is discarded, and all pages are asked for until it ends', async (t) => {
  const { served, frontend, driver } = await running();
  await served.vm.setInhibited('maintenance');
  await frontend.waitConfigChanges(1);
  t.equal(await driver.read(CACHE_CONFIG.lock), 1);
  fill(frontend.ram, pfns(FIRST, 512), 1);
  await driver.add([{ pfn: FIRST, order: 9 }]);
  await served.settle();
  t.ok(
    pfns(FIRST, 512).every((pfn) => frontend.ram.pageHolds(pfn, 1)),
    'acked, not discarded',
  );
  await served.vm.setInhibited(null);
  await frontend.waitConfigChanges(2);
  t.equal(await driver.read(CACHE_CONFIG.lock), 0);
  await served.settle();
  t.ok(
    pfns(FIRST, 512).every((pfn) => frontend.ram.pageHolds(pfn, 1)),
    'nor afterwards: reclaim may have them',
  );
  await served.close();
});

/** One buffer each that breaks its queue, or names nothing. */
const BAD: readonly (readonly [string, bigint, Uint8Array, boolean])[] = [
  ['half an entry', NO_CACHE_FEATURES, frames(pages(FIRST, 2)).subarray(0, 6), false],
  ['half a range', ALL_CACHE_FEATURES, ranges(pages(FIRST, 2)).subarray(0, 12), false],
  ['a huge order', ALL_CACHE_FEATURES, ranges([...pages(FIRST, 1), { pfn: 0, order: 19 }]), false],
  ['the largest order', ALL_CACHE_FEATURES, ranges([{ pfn: FIRST, order: 0xfff }]), false],
  ['not aligned', ALL_CACHE_FEATURES, ranges([...pages(FIRST, 1), { pfn: FIRST + 1, order: 1 }]), false],
  ['writable', ALL_CACHE_FEATURES, ranges(pages(FIRST, 1)), true],
  ['too long', ALL_CACHE_FEATURES, new Uint8Array(32 * 1024 + 8), false],
];
for (const [what, features, bytes, writable] of BAD) {
  eachOrder({ features })(
    `bad buffer, ${what}: its queue is stopped, and nothing of it discarded`,
    async (t) => {
      const { served, frontend, driver } = await running(features);
      frontend.ram.fillPage(FIRST, 1);
      driver.offer(driver.cacheq, bytes, { writable });
      await served.until(({ verdict }) => verdict !== null, 'it is said');
      await served.settle();
      t.equal(served.saw('driver-error').length, 1);
      t.equal(frontend.takeRingErrors(0) > 0, frontend.hearsErrors);
      t.ok(frontend.ram.pageHolds(FIRST, 1));
      t.equal(served.view.balloon.discardedBytesTotal, 0);
      // The VMM is served on.
      t.equal(await driver.read(CACHE_CONFIG.numPages), 0);
      t.same(frontend.protocolViolations, []);
      await served.close();
    },
  );
}

whereAll('blocks outside of guest memory are ignored, and the rest is not', async (t) => {
  const { served, frontend, driver } = await running();
  const last = RAM_PAGES - 1;
  frontend.ram.fillPage(last, 1);
  await driver.add([
    { pfn: RAM_PAGES, order: 9 },
    { pfn: 2 ** 40, order: 18 },
    { pfn: 2 ** 52 - 1, order: 0 },
    { pfn: last, order: 0 },
  ]);
  t.ok(frontend.ram.pageIsZero(last));
  t.equal(served.view.balloon.inflatedBytesTotal, PAGE_BYTES);
  await served.close();
});

for (const stops of [false, true]) {
  whereAll(`what inhibited a daemon that is gone locks nobody out, stopped: ${stops}`, async (t) => {
    const fds = new NamedFds();
    const [ours, theirs] = socketPair();
    fds.keep(ours);
    const left = StateFile.create();
    const identity = { name: 'vm', pid: 2 ** 22 + 1, options: OPTIONS };
    let ends = 0;
    const ended = (): number => ends++;
    const handOver = { keeper: fds, state: left, found: null };
    const before = serveDevice(ours, identity, handOver, nothing, ended);
    const frontend = new Frontend({ socket: theirs, ...SPACE });
    await frontend.connect();
    const driver = await CacheDriver.start(frontend);
    await driver.add([{ pfn: FIRST, order: 9 }]);
    // As a pin does: what is written down as inhibiting is the operator's word alone.
    await before.vm.setInhibited('a device');
    await frontend.waitConfigChanges(1);
    t.equal(await driver.read(CACHE_CONFIG.lock), 1);
    await driver.write(CACHE_CONFIG.locked, 1);
    if (stops) await driver.reset();
    const state = StateFile.open(duplicateFd(left.fd));
    const found = { ...decodeVmRecord(before.device.record()), inhibited: null };
    t.equal(found.device, 'cache-balloon');
    // The process before it does nothing from here on, as one that was killed.
    const next = fds.next(new Map());
    const connection = next.claim(found.connection) ?? -1;
    const after = serveDevice(connection, identity, { keeper: next, state, found }, nothing, ended);
    t.equal(after.vm.inhibited, null);
    t.equal(state.words[CACHE_CONFIG.lock / 4], 0);
    t.equal(after.device.balloonView().actualBytes, 512 * PAGE_BYTES, 'also where it stopped');
    before.vm.close();
    frontend.close();
    await until(() => ends === 2, 'both end');
    fds.close();
    next.close();
  });
}

whereAll('a VMM with both balloons is one VM, in metrics, too', async (t) => {
  const silent = { debug: nothing, info: nothing, warn: nothing, error: nothing };
  const fleet = new VmFleet({}, new EventLog(silent), NO_KEEPER);
  const connect = (socket: SocketSettings | null): number => {
    const [ours, theirs] = socketPair();
    fleet.adopt(ours, socket);
    return theirs;
  };
  const traditional = connect(null);
  const frontend = new Frontend({
    socket: connect({ path: '/cache', device: 'cache-balloon' }),

    ...SPACE,
  });
  await frontend.connect();
  const driver = await CacheDriver.start(frontend);
  await driver.add([{ pfn: FIRST, order: 6 }]);
  const bytes = 64 * PAGE_BYTES;
  const [vm, ...others] = fleet.control.list();
  t.same(others, []);
  t.match(vm, { state: 'connected', ramBytes: RAM_PAGES * PAGE_BYTES });
  t.match(vm, { balloon: { actualBytes: 0 }, cache: { actualBytes: bytes } });
  const live = (): unknown => fleet.control.live().vms;
  const onPage = [{ name: vm?.name, actualBytes: 0, cacheBytes: bytes }];
  t.match(live(), onPage);
  const sum = async (name: string): Promise<number[]> =>
    parseMetrics(String(await fleet.control.metrics()))
      .filter((sample) => sample.name === name)
      .map(({ value }) => value);
  t.same(await sum('balloond_vm_cache_actual_bytes'), [bytes]);
  t.same(await sum('balloond_cache_inflated_bytes_total'), [bytes]);
  t.same(await sum('balloond_balloon_inflated_bytes_total'), [0]);
  closeFd(traditional);
  await until(() => fleet.control.list()[0]?.state === 'running', 'the traditional one is gone');
  t.match(live(), onPage);
  t.same(await sum('balloond_vm_cache_actual_bytes'), [bytes]);
  frontend.close();
  await until(() => fleet.size === 0, 'both are gone');
  t.same(await sum('balloond_vm_cache_actual_bytes'), []);
  t.same(await sum('balloond_cache_inflated_bytes_total'), [bytes], 'the sum keeps it');
  fleet.close();
});

inEachOrder(
  'the policy governs who has a page cache balloon only, until an operator sets its limit',
  async (t) => {
    const silent = { debug: nothing, info: nothing, warn: nothing, error: nothing };
    const tree = new HostTree(t);
    tree.write('proc/meminfo', 'MemTotal: 1048576 kB\nMemAvailable: 65536 kB\n');
    const config = { policy: { mode: 'auto', interval: 0.05 } } as const;
    const fleet = new VmFleet(config, new EventLog(silent), NO_KEEPER, { paths: tree.paths });
    const [ours, theirs] = socketPair();
    fleet.adopt(ours, { path: '/cache', device: 'cache-balloon', name: 'cached' });
    const frontend = new Frontend({ socket: theirs, ...SPACE });
    await frontend.connect();
    const driver = await CacheDriver.start(frontend);
    fleet.startPolicy();
    const bytes = RAM_PAGES * PAGE_BYTES;
    const limit = (): number => fleet.control.find('cached')?.cache?.targetBytes ?? -1;
    await until(() => limit() === Math.floor(0.9 * RAM_PAGES) * PAGE_BYTES, 'all but its floor');
    t.equal(await driver.read(CACHE_CONFIG.numPages), limit() / PAGE_BYTES);
    const policy = { band: 'bronze', minBytes: Math.round(0.1 * bytes), maxBytes: bytes };
    t.match(fleet.control.find('cached'), { policy: { ...policy, mode: 'auto' } });
    await driver.reset();
    await until(() => fleet.control.find('cached')?.state === 'stopped', 'the guest reboots');
    const again = await CacheDriver.start(frontend);
    t.equal(await again.read(CACHE_CONFIG.numPages), limit() / PAGE_BYTES, 'also for the next driver');
    t.match(await fleet.control.setTarget('cached', { cacheLimitBytes: 5 * PAGE_BYTES }), {
      policy: { mode: 'manual' },
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    t.equal(limit(), 5 * PAGE_BYTES);
    await fleet.control.changePolicy({ paused: false, vm: 'cached' });
    t.match(fleet.control.find('cached'), { policy: { mode: 'auto' } });
    await until(() => limit() > 5 * PAGE_BYTES, 'governed again');
    frontend.close();
    await until(() => fleet.size === 0, 'it is gone');
    fleet.close();
  },
);
