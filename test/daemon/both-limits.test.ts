// One device with both limits: a traditional balloon whose driver also acks the feature bits of the page cache balloon, and
// what becomes of drivers and VMMs that know only one of the two.
import { decodeVmRecord } from '../../src/vm/record.js';
import { StateFile } from '../../src/memory/state-file.js';
import { deviceOptions } from '../../src/daemon/settings.js';
import { duplicateFd } from '../../src/os/fd.js';
import { socketPair } from '../../src/os/socket.js';
import { NamedFds } from '../fuzz/named-fds.js';
import { until } from '../fuzz/fuzzer.js';
import {
  BALLOON_F,
  BalloonDriver,
  BOTH_LIMITS,
  BOTH_SPACE,
  CONFIG_ACTUAL,
  LINUX_FEATURES,
  numberQueues,
  type BalloonDriverOptions,
} from '../support/balloon-driver.js';
import { CACHE_CONFIG, CACHE_F, pages } from '../support/cache-driver.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { parseMetrics } from '../support/metric-samples.js';
import { pfns, serveDevice, ServedVm } from '../support/served-vm.js';
import { bits, readU32, u32s, u64s } from '../support/wire.js';
import { wire } from '../support/vm-on-the-wire.js';
import { vmView } from '../../src/vm/view.js';

/** VMMs whose guests see the bits of the page cache balloon. */
const whereBoth = eachOrder({ features: BOTH_LIMITS });
const FIRST = 4096;
const MIB = 2 ** 20;
/** Where the config space of the page cache balloon begins. */
const CACHE_AT = 16;

function running(
  driver: BalloonDriverOptions = { features: BOTH_LIMITS },
  frontend: { queueCount: number; configBytes: number } = BOTH_SPACE,
): ReturnType<typeof ServedVm.running> {
  return ServedVm.running({ frontend, driver });
}

function whole(served: ServedVm): ReturnType<typeof vmView> {
  return vmView(served.vm, null);
}

whereBoth('a driver that acks its bits has both limits on one device', async (t) => {
  const { served, frontend, driver } = await running();
  t.match(whole(served), { cache: { targetBytes: 0, actualBytes: 0 } });
  served.vm.setTarget({ balloonBytes: 2 * MIB });
  served.vm.setTarget({ cacheLimitBytes: 8 * MIB });
  await frontend.waitConfigChanges(1);
  const space = await frontend.getConfig(0, BOTH_SPACE.configBytes);
  t.same([readU32(space, 0), readU32(space, CACHE_AT)], [512, 2048]);

  const taken = pfns(FIRST, 512);
  for (const pfn of taken) frontend.ram.fillPage(pfn, 1);
  await driver.tellBlocks('inflate', [{ pfn: FIRST, order: 9 }]);
  await frontend.writeConfigField(CONFIG_ACTUAL, 512);
  await served.discarded();
  t.ok(
    taken.every((pfn) => frontend.ram.pageIsZero(pfn)),
    'a block of 2 MiB in one entry',
  );

  for (const pfn of pfns(FIRST + 1024, 64)) frontend.ram.fillPage(pfn, 2);
  await driver.tellBlocks('cache', [{ pfn: FIRST + 1024, order: 6 }]);
  const gone = pfns(FIRST + 1024, 64).every((pfn) => frontend.ram.pageIsZero(pfn));
  t.ok(gone, 'discarded before the ack');
  await frontend.writeConfigField(CACHE_AT + CACHE_CONFIG.actual, 64);
  await frontend.getConfig();
  t.match(whole(served), {
    balloon: { targetBytes: 2 * MIB, actualBytes: 2 * MIB, inflatedBytesTotal: 2 * MIB },
    cache: { targetBytes: 8 * MIB, actualBytes: 64 * PAGE_BYTES, inflatedBytesTotal: 64 * PAGE_BYTES },
    verdict: null,
  });

  // What reclaim took back is the guest's: an inhibition that ends discards nothing of it.
  await driver.tellBlocks('reclaim', pages(FIRST + 1024, 64));
  for (const pfn of pfns(FIRST + 1024, 64)) frontend.ram.fillPage(pfn, 3);
  await served.vm.setInhibited('a test');
  await served.vm.setInhibited(null);
  await served.settle();
  for (const pfn of pfns(FIRST + 1024, 64)) t.ok(frontend.ram.pageHolds(pfn, 3), 'is as it was written');
  t.match(whole(served), { cache: { deflatedBytesTotal: 64 * PAGE_BYTES } });
  await driver.tellBlocks('deflate', [{ pfn: FIRST, order: 9 }]);
  for (const pfn of taken) frontend.ram.fillPage(pfn, 4);
  await served.settle();
  t.ok(
    taken.every((pfn) => frontend.ram.pageHolds(pfn, 4)),
    'and so are pages of the balloon',
  );
  t.same(frontend.protocolViolations, []);
  await served.close();
});

inEachOrder('a driver that acks none of them has the balloon it knows', async (t) => {
  const { served, frontend, driver } = await running({});
  t.equal(whole(served).cache, null);
  t.throws(() => served.vm.setTarget({ cacheLimitBytes: MIB }), /has no page cache balloon: load/);
  served.vm.setTarget({ balloonBytes: MIB });
  await driver.inflate(pfns(FIRST, 256));
  await served.discarded();
  t.match(whole(served), { balloon: { actualBytes: MIB }, verdict: null });
  t.same(frontend.protocolViolations, []);
  await served.close();
});

whereBoth('each numbering of the queues works, with every choice of bits', async (t) => {
  for (const numbering of ['linux-compressed', 'by-offered', 'spec-fixed'] as const) {
    for (const left of [[], [BALLOON_F.STATS_VQ], [BALLOON_F.REPORTING], [CACHE_F.TELL_RECLAIM]] as const) {
      const features = BOTH_LIMITS & ~bits(...left);
      const { served, driver } = await running({ features, numbering });
      await driver.tellBlocks('cache', [{ pfn: FIRST, order: 3 }]);
      t.match(whole(served), { cache: { inflatedBytesTotal: 8 * PAGE_BYTES } });
      await served.close();
    }
  }
  t.equal(numberQueues('linux-compressed', BOTH_LIMITS, BOTH_LIMITS).get('cache'), 4, 'there is no hint');
});

whereBoth('a VMM with the queues and the config space of old has a plain balloon', async (t) => {
  // Also where the driver acks bits for which there are no queues: it uses those that it knew before.
  for (const features of [LINUX_FEATURES, LINUX_FEATURES | BOTH_LIMITS]) {
    const served = new ServedVm();
    await served.frontend.connect();
    await served.until(() => whole(served).queuesLacking !== null, 'its queues are counted');
    t.same(whole(served).queuesLacking, { present: 5, needed: 7 });
    const without = ['cache', 'reclaim'] as const;
    const driver = await BalloonDriver.start(served.frontend, { features, without });
    await served.until(({ state }) => state === 'running', 'the device runs');
    await driver.inflate(pfns(FIRST, 16));
    await driver.report([{ gpa: (FIRST + 512) * PAGE_BYTES, len: 16 * PAGE_BYTES }]);
    const asked = served.device.refreshStats(10_000);
    await driver.waitStatsRequests(1);
    t.ok(await asked);
    t.match(whole(served), {
      verdict: null,
      balloon: { actualBytes: 16 * PAGE_BYTES, reportedBytesTotal: 16 * PAGE_BYTES },
    });
    t.same(served.saw('too-few-queues'), []);
    await served.close();
  }
});

whereBoth(
  'a driver that acks the bits and names pages in the words of old is refused, and its VM alone',
  async (t) => {
    const { served, frontend, driver } = await running();
    const other = await running();
    // Four page frame numbers read as two blocks, of which the second is none.
    const ring = driver.ring('inflate');
    frontend.ram.write(FIRST * PAGE_BYTES, u32s(FIRST << 12, 0, 4097, 4098));
    ring.add([{ gpa: FIRST * PAGE_BYTES, len: 16 }]);
    ring.kick();
    await served.until(({ verdict }) => verdict !== null, 'it is refused');
    t.match(whole(served).verdict, /ring 0 is stopped, since 0x\w+ is no aligned block.*reload/);
    t.equal(frontend.takeRingErrors(0), 1);
    await driver.tellBlocks('cache', [{ pfn: FIRST, order: 0 }]);
    t.match(whole(served), { balloon: { inflatedBytesTotal: 0 }, cache: { inflatedBytesTotal: PAGE_BYTES } });
    await other.driver.inflate(pfns(FIRST, 16));
    t.match(whole(other.served), { verdict: null, balloon: { actualBytes: 16 * PAGE_BYTES } });
    await served.close();
    await other.served.close();
  },
);

whereBoth('hostile buffers stop the ring that they are in, and nothing is discarded', async (t) => {
  const bad: [string, Uint8Array][] = [
    ['an odd length', new Uint8Array(12)],
    ['no aligned block', u64s((4097n << 12n) | 1n)],
    ['an order beyond 1 GiB', u64s(19n)],
    ['a good entry before a bad one', u64s(BigInt(FIRST) << 12n, 0xfffn)],
  ];
  for (const role of ['inflate', 'deflate', 'cache', 'reclaim'] as const) {
    for (const [what, bytes] of bad) {
      const { served, frontend, driver } = await running();
      frontend.ram.fillPage(FIRST, 5);
      const ring = driver.ring(role);
      frontend.ram.write((FIRST + 1) * PAGE_BYTES, bytes);
      ring.add([{ gpa: (FIRST + 1) * PAGE_BYTES, len: bytes.length }]);
      ring.kick();
      await served.until(({ verdict }) => verdict !== null, `${role}: ${what}`);
      t.ok(frontend.ram.pageHolds(FIRST, 5), `${role}: ${what}`);
      await served.close();
    }
    // Blocks that nobody has, and all of guest memory at once.
    const { served, driver } = await running();
    const far = Array.from({ length: 256 }, (_, n) => ({ pfn: 2 ** 40 + n * 2 ** 18, order: 18 }));
    await driver.tellBlocks(role, far);
    t.match(whole(served), { verdict: null });
    await served.close();
  }
});

whereBoth(
  'config accesses of each size past the sixteenth byte are answered, and change the driver’s fields alone',
  async (t) => {
    const { served, frontend } = await running();
    served.vm.setTarget({ cacheLimitBytes: 9 * PAGE_BYTES });
    for (let offset = 0; offset <= 64; offset++) {
      for (let len = 1; len <= 64; len++) {
        const bytes = await frontend.getConfig(offset, len);
        const at = CACHE_AT - offset;
        if (at >= 0 && at < len && bytes[at] !== 9) t.fail(`${len} bytes at ${offset}`);
      }
    }
    const limit = (): number => whole(served).cache?.targetBytes ?? -1;
    for (let offset = CACHE_AT; offset < 48; offset++) {
      for (const len of [1, 2, 3, 5, 8, 28, 40]) {
        await frontend.setConfig(offset, new Uint8Array(len).fill(0xff));
        if (limit() !== 9 * PAGE_BYTES) t.fail(`${len} bytes at ${offset} wrote the limit`);
      }
    }
    await frontend.getConfig();
    t.equal(whole(served).cache?.actualBytes, 0xffffffff * PAGE_BYTES, 'its own field is a hint');
    const space = await frontend.getConfig(0, BOTH_SPACE.configBytes);
    t.equal(readU32(space, CACHE_AT + CACHE_CONFIG.lock), 0);
    t.match(whole(served), { balloon: { actualBytes: 0 }, verdict: null });
    await served.close();
  },
);

whereBoth(
  'a discard that is forbidden asks the driver for its page cache pages, and for no others',
  async (t) => {
    const { served, frontend, driver } = await running();
    const lock = async (): Promise<number> =>
      readU32(await frontend.getConfig(), CACHE_AT + CACHE_CONFIG.lock);
    frontend.ram.fillPage(FIRST, 6);
    await served.vm.setInhibited('a test');
    t.equal(await lock(), 1);
    await driver.tellBlocks('cache', [{ pfn: FIRST, order: 0 }]);
    t.ok(frontend.ram.pageHolds(FIRST, 6), 'it is left alone');
    await served.vm.setInhibited(null);
    t.equal(await lock(), 0);
    await driver.tellBlocks('cache', [{ pfn: FIRST, order: 0 }]);
    t.ok(frontend.ram.pageIsZero(FIRST));
    await served.close();
  },
);

whereBoth('the limit outlives the driver and the daemon, and what the driver held does not', async (t) => {
  const fds = new NamedFds();
  const [ours, theirs] = socketPair();
  fds.keep(ours);
  const left = StateFile.create();
  const options = { ...deviceOptions({}, null, 'vm'), statsIntervalSeconds: 0 };
  const identity = { name: 'vm', pid: 2 ** 22 + 1, options };
  const nothing = (): void => undefined;
  let ends = 0;
  const ended = (): number => ends++;
  const before = serveDevice(ours, identity, { keeper: fds, state: left, found: null }, nothing, ended);
  const frontend = new Frontend({ socket: theirs, ...BOTH_SPACE });
  await frontend.connect();
  const first = await BalloonDriver.start(frontend, { features: BOTH_LIMITS });
  await frontend.writeConfigField(CACHE_AT + CACHE_CONFIG.actual, 7);
  before.vm.setTarget({ cacheLimitBytes: 4 * MIB });
  await first.reset();
  t.match(vmView(before.vm, null), { cache: { targetBytes: 4 * MIB, actualBytes: 7 * PAGE_BYTES } });
  const driver = await BalloonDriver.start(frontend, { features: BOTH_LIMITS });
  await frontend.getConfig();
  t.match(vmView(before.vm, null), { cache: { targetBytes: 4 * MIB, actualBytes: 0 } });
  await driver.tellBlocks('cache', [{ pfn: FIRST, order: 9 }]);
  await frontend.writeConfigField(CACHE_AT + CACHE_CONFIG.actual, 512);
  await frontend.getConfig();
  const state = StateFile.open(duplicateFd(left.fd));
  const next = fds.next(new Map());
  const found = decodeVmRecord(before.device.record());
  const connection = next.claim(found.connection) ?? -1;
  const after = serveDevice(connection, identity, { keeper: next, state, found }, nothing, ended);
  const cache = { targetBytes: 4 * MIB, actualBytes: 2 * MIB, inflatedBytesTotal: 2 * MIB };
  t.match(vmView(after.vm, null), { state: 'running', cache });
  before.vm.close();
  frontend.close();
  await until(() => ends === 2, 'both end');
  fds.close();
  next.close();
});

whereBoth(
  'a page cache balloon within another one is in metrics, and in their sums when it is gone',
  async (t) => {
    const { fleet, connect, gone } = wire(t);
    await connect('both');
    const [vm] = fleet.control.list();
    t.match(vm, { cache: { inflatedBytesTotal: 512 * PAGE_BYTES } });
    const sum = async (name: string): Promise<number[]> =>
      parseMetrics(String(await fleet.control.metrics()))
        .filter((sample) => sample.name === name)
        .map(({ value }) => value);
    t.same(await sum('balloond_cache_inflated_bytes_total'), [512 * PAGE_BYTES]);
    await gone();
    t.same(await sum('balloond_cache_inflated_bytes_total'), [512 * PAGE_BYTES], 'the sum keeps it');
  },
);
