// The rules that protect a VM, each seen from a VMM and a guest that stand in for QEMU and Linux.
import t from 'tap';
import { mapsPrivately } from '../../src/host/peer.js';
import { closeFd } from '../../src/os/fd.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { readFileSync } from 'node:fs';
import {
  BALLOON_F,
  BalloonDriver,
  LINUX_FEATURES,
  numberQueues,
  type Numbering,
} from '../support/balloon-driver.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, F_VERSION_1 } from '../support/guest-ring.js';
import { bits, PROTOCOL_F } from '../support/wire.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { BalloonFeature, type BalloonFeatureName } from '../../protocol/virtio/balloon.js';

const FIRST = 4096;
// cloud-hypervisor hides the features of a balloon, and crosvm knows no single regions.
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST) });
const whereAsked = eachOrder({ features: bits(BALLOON_F.STATS_VQ) });
const whereHinted = eachOrder({ features: bits(BALLOON_F.FREE_PAGE_HINT) });
const wherePoisoned = eachOrder({ features: bits(BALLOON_F.PAGE_POISON) });
const whereReported = eachOrder({ features: bits(BALLOON_F.REPORTING) });
const whereUnmapped = eachOrder({ protocolFeatures: bits(PROTOCOL_F.CONFIGURE_MEM_SLOTS) });

/** The driver's own buffers come into being with their first use. */
async function warmUp(driver: BalloonDriver): Promise<void> {
  await driver.tellPfns('inflate', [FIRST - 1]);
  await driver.tellPfns('deflate', [FIRST - 1]);
}

/** Of a driver that may use pages before it has told us. */
const NEED_NOT_TELL = LINUX_FEATURES & ~bits(BALLOON_F.MUST_TELL_HOST);

function fill(ram: GuestRam, pages: readonly number[], seed = 1): void {
  for (const pfn of pages) ram.fillPage(pfn, seed);
}

inEachOrder('rule 1: an inflated page is removed from the file, not only unmapped', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  await warmUp(driver);
  // A page that is given back at once may have been discarded or not.
  const { discardedBytesTotal } = served.view.balloon;
  const pages = pfns(FIRST, 1000);
  fill(frontend.ram, pages);
  const before = frontend.ram.allocatedBytes();
  await driver.inflate(pages);
  await served.discarded();
  t.equal(before - frontend.ram.allocatedBytes(), pages.length * PAGE_BYTES);
  t.ok(pages.every((pfn) => frontend.ram.pageIsZero(pfn)));
  const { balloon } = served.view;
  t.equal(balloon.actualBytes, pages.length * PAGE_BYTES);
  t.equal(Number(balloon.discardedBytesTotal) - Number(discardedBytesTotal), pages.length * PAGE_BYTES);
  t.equal(balloon.pendingBytes, 0);
  await served.close();
});

inEachOrder('rule 2: config changes are announced only while started, one at a time', async (t, order) => {
  const served = new ServedVm();
  const { frontend, vm } = served;
  await frontend.connect();
  vm.setTarget({ balloonBytes: 16 * 2 ** 20 });
  await served.settle();
  // cloud-hypervisor has no channel yet.
  const early = order.connect.includes('SET_BACKEND_REQ_FD') ? frontend.configChanges.length : 0;
  t.equal(early, 0, 'none before the driver started');
  const driver = await BalloonDriver.start(frontend);
  await frontend.waitConfigChanges(1);
  frontend.channel.holdReplies();
  vm.setTarget({ balloonBytes: 8 * 2 ** 20 });
  await frontend.waitConfigChanges(2);
  for (let mib = 1; mib <= 4; mib++) vm.setTarget({ balloonBytes: mib * 2 ** 20 });
  await served.settle();
  t.equal(frontend.configChanges.length, 2, 'no second one while one is not answered');
  frontend.channel.releaseReplies();
  await frontend.waitConfigChanges(3);
  await served.settle();
  t.equal(frontend.configChanges.length, 3, 'all changes meanwhile became one');
  t.equal(await driver.readTargetPages(), (4 * 2 ** 20) / PAGE_BYTES);
  await driver.reset();
  vm.setTarget({ balloonBytes: 0 });
  await served.settle();
  t.equal(frontend.configChanges.length, 3, 'none after the device stopped');
  t.same(frontend.protocolViolations, []);
  await served.close();
});

inEachOrder('rule 3: who reads each answer only after it was all sent keeps its connection', async (t) => {
  const { served, frontend } = await ServedVm.running();
  // Several times what there is room for.
  for (let n = 0; n < 8000; n++) await frontend.getConfig();
  t.equal(served.view.state, 'running');
  await served.close();
});

inEachOrder('rule 4: a page is gone before its ack where the driver need not tell', async (t) => {
  const { served, frontend, driver } = await ServedVm.running({ driver: { features: NEED_NOT_TELL } });
  await warmUp(driver);
  for (let round = 0; round < 50; round++) {
    const pages = pfns(FIRST + 7 * round, 1 + (round % 17));
    fill(frontend.ram, pages, round);
    const before = frontend.ram.allocatedBytes();
    await driver.tellPfns('inflate', pages);
    if (before - frontend.ram.allocatedBytes() !== pages.length * PAGE_BYTES) t.fail('acked, not discarded');
    await driver.tellPfns('deflate', pages);
    fill(frontend.ram, pages, round + 100);
    await served.settle();
    if (!pages.every((pfn) => frontend.ram.pageHolds(pfn, round + 100))) t.fail('lost after its deflate');
  }
  t.equal(served.view.balloon.pendingBytes, 0);
  await served.close();
});

whereTold('rule 4: where it must tell, a page is discarded behind the ack, until its deflate', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  await warmUp(driver);
  for (let round = 0; round < 50; round++) {
    const pages = pfns(FIRST + 200 * round, 1 + ((round * 37) % 900));
    fill(frontend.ram, pages, round);
    await driver.inflate(pages);
    // Now and then the discard is under way just then.
    if (round % 3 === 1) await served.settle();
    if (round % 3 === 2) await served.discarded();
    const back = pages.filter((pfn) => pfn % 2 === 0);
    await driver.deflate(back);
    fill(frontend.ram, back, round + 100);
    await served.discarded();
    await served.settle();
    if (!back.every((pfn) => frontend.ram.pageHolds(pfn, round + 100))) t.fail('lost after its deflate');
    const kept = pages.filter((pfn) => pfn % 2 === 1);
    if (!kept.every((pfn) => frontend.ram.pageIsZero(pfn))) t.fail('not discarded');
    await driver.deflate(kept);
  }
  await served.close();
});

whereReported('rule 4: reported pages are gone before their ack', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  await driver.report([{ gpa: FIRST * PAGE_BYTES, len: PAGE_BYTES }]);
  for (let round = 0; round < 20; round++) {
    const pages = pfns(FIRST + round, 64);
    fill(frontend.ram, pages, round);
    await driver.report([{ gpa: (FIRST + round) * PAGE_BYTES, len: 64 * PAGE_BYTES }]);
    if (!pages.every((pfn) => frontend.ram.pageIsZero(pfn))) t.fail('acked, not discarded');
    fill(frontend.ram, pages, round + 100);
    await served.settle();
    if (!pages.every((pfn) => frontend.ram.pageHolds(pfn, round + 100))) t.fail('lost after its ack');
  }
  await served.close();
});

whereUnmapped(
  'rule 4: once the device is stopped, memory or rings are away, nothing is discarded',
  async (t) => {
    for (const end of ['stop', 'reset', 'inhibit', 'memory'] as const) {
      const { served, frontend, driver } = await ServedVm.running();
      await warmUp(driver);
      const pages = Array.from({ length: 5000 }, (_, n) => FIRST + 2 * n);
      fill(frontend.ram, pages);
      await driver.inflate(pages);
      // The time bound is over soon, and discarding under way.
      await served.until(({ balloon }) => Number(balloon.discardedBytesTotal) > PAGE_BYTES, 'discarding');
      if (end === 'stop') await frontend.stop();
      else if (end === 'reset') await driver.reset();
      else if (end === 'inhibit') await served.vm.setInhibited('maintenance');
      else await frontend.forgetMemory();
      fill(frontend.ram, pages, 2);
      await new Promise((resolve) => setTimeout(resolve, 60));
      t.ok(
        pages.every((pfn) => frontend.ram.pageHolds(pfn, 2)),
        end,
      );
      await served.close();
    }
  },
);

whereReported(
  'rule 5: while inhibited nothing is discarded, afterwards what is still in the balloon',
  async (t) => {
    const { served, frontend, driver } = await ServedVm.running();
    await warmUp(driver);
    await driver.report([{ gpa: (FIRST + 2048) * PAGE_BYTES, len: PAGE_BYTES }]);
    const pages = pfns(FIRST, 600);
    fill(frontend.ram, pages);
    const before = frontend.ram.allocatedBytes();
    await served.vm.setInhibited('maintenance');
    await driver.inflate(pages);
    await driver.report([{ gpa: (FIRST + 1024) * PAGE_BYTES, len: 2 ** 20 }]);
    t.equal(frontend.ram.allocatedBytes(), before);
    t.equal(served.view.inhibited, 'maintenance');
    t.equal(served.view.balloon.pendingBytes, pages.length * PAGE_BYTES);
    await driver.deflate(pages.slice(0, 100));
    fill(frontend.ram, pages.slice(0, 100), 2);
    await served.vm.setInhibited(null);
    await served.discarded();
    t.equal(before - frontend.ram.allocatedBytes(), 500 * PAGE_BYTES);
    t.ok(
      pages.slice(0, 100).every((pfn) => frontend.ram.pageHolds(pfn, 2)),
      'what the guest took back is its own',
    );
    t.same(
      served.events.map(({ event }) => event).filter((event) => event === 'inhibited' || event === 'allowed'),
      ['inhibited', 'allowed'],
    );
    await served.close();
  },
);

inEachOrder('rule 5: of a driver that need not tell, nothing is made up for', async (t) => {
  const { served, frontend, driver } = await ServedVm.running({ driver: { features: NEED_NOT_TELL } });
  await served.vm.setInhibited('maintenance');
  const pages = pfns(FIRST, 600);
  await driver.inflate(pages);
  t.equal(served.view.balloon.pendingBytes, 0);
  // It uses them, and would tell later.
  fill(frontend.ram, pages);
  await served.vm.setInhibited(null);
  await driver.tellPfns('inflate', [FIRST + 1000]);
  await served.settle();
  t.ok(pages.every((pfn) => frontend.ram.pageHolds(pfn, 1)));
  await served.close();
});

inEachOrder('rule 5: a VM that was reset while inhibited loses nothing when that ends', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  await served.vm.setInhibited('maintenance');
  const pages = pfns(FIRST, 300);
  await driver.inflate(pages);
  await driver.reset();
  fill(frontend.ram, pages, 3);
  await served.vm.setInhibited(null);
  await served.settle();
  t.ok(
    pages.every((pfn) => frontend.ram.pageHolds(pfn, 3)),
    'while stopped',
  );
  await BalloonDriver.start(frontend);
  await served.settle();
  t.ok(
    pages.every((pfn) => frontend.ram.pageHolds(pfn, 3)),
    'and after the next start',
  );
  t.equal(served.view.balloon.pendingBytes, 0);
  await served.close();
});

whereHinted(
  'rule 6: hinted pages are acked and never discarded, and hinting is never asked for',
  async (t) => {
    const { served, frontend, driver } = await ServedVm.running();
    const pages = pfns(FIRST, 16);
    fill(frontend.ram, pages);
    const ring = driver.ring('hint');
    ring.add([{ gpa: FIRST * PAGE_BYTES, len: 16 * PAGE_BYTES, writable: true }]);
    ring.kick();
    await ring.waitUsed(1);
    await served.settle();
    t.ok(pages.every((pfn) => frontend.ram.pageHolds(pfn, 1)));
    t.same([...(await frontend.getConfig(8, 4))], [0, 0, 0, 0], 'free_page_hint_cmd_id stays STOP');
    await served.close();
  },
);

wherePoisoned('rule 7: reported pages of a guest that poisons them are not discarded', async (t) => {
  const range = { gpa: FIRST * PAGE_BYTES, len: 64 * PAGE_BYTES };
  for (const [poisonValue, kept] of [
    [0xaaaaaaaa, true],
    [0, false],
  ] as const) {
    const { served, frontend, driver } = await ServedVm.running({ driver: { poisonValue } });
    fill(frontend.ram, pfns(FIRST, 64));
    await driver.report([range]);
    t.equal(frontend.ram.pageHolds(FIRST, 1), kept, `poison_val 0x${poisonValue.toString(16)}`);
    t.equal(served.view.balloon.reportedBytesTotal, range.len);
    t.equal(served.saw('page-poison-active').length, kept ? 1 : 0);
    await served.close();
  }
});

inEachOrder("rule 8: the VMM's cached num_pages does not become the target", async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  await frontend.getConfig();
  served.vm.setTarget({ balloonBytes: 2 ** 20 });
  // The cache still says 0 pages when the driver writes its actual.
  await driver.inflate(pfns(FIRST, 10));
  t.equal(await driver.readTargetPages(), 256);
  t.equal(served.view.balloon.targetBytes, 2 ** 20);
  await served.close();
});

whereAsked('rule 9: every set of offered features works with every numbering of queues', async (t) => {
  const names = (Object.keys(BalloonFeature) as BalloonFeatureName[]).filter(
    (name) => !name.endsWith('DEFLATE_ON_OOM'),
  );
  for (let set = 0; set < 2 ** names.length; set++) {
    const features = names.filter((_, n) => ((set >> n) & 1) === 1);
    for (const numbering of ['linux-compressed', 'by-offered', 'spec-fixed'] as Numbering[]) {
      const queueCount = 2 + features.filter((name) => /STATS|HINT|REPORTING/.test(name)).length;
      const acked = bits(...features.map((name) => BalloonFeature[name]));
      // The specification's numbers may need more queues than the device has: such a driver cannot start.
      if (Math.max(...numberQueues(numbering, acked, acked).values()) >= queueCount) continue;
      const { served, frontend, driver } = await ServedVm.running({
        features,
        frontend: { queueCount },
        driver: { numbering, features: LINUX_FEATURES },
      });
      const what = `${features.join('+')} ${numbering}`;
      fill(frontend.ram, pfns(FIRST, 40));
      await driver.inflate(pfns(FIRST, 20));
      await driver.deflate(pfns(FIRST, 5));
      await served.discarded();
      if (!frontend.ram.pageIsZero(FIRST + 10)) t.fail(`${what}: inflate`);
      if (features.includes('VIRTIO_BALLOON_F_REPORTING')) {
        await driver.report([{ gpa: (FIRST + 20) * PAGE_BYTES, len: 20 * PAGE_BYTES }]);
        if (!frontend.ram.pageIsZero(FIRST + 30)) t.fail(`${what}: reporting`);
      }
      if (features.includes('VIRTIO_BALLOON_F_STATS_VQ')) {
        if (!(await served.device.refreshStats(5000))) t.fail(`${what}: statistics`);
      }
      if (served.saw('driver-error').length > 0) t.fail(`${what}: a ring was stopped`);
      await served.close();
    }
  }
  t.pass();
});

whereAsked('rule 10: rings start at used->idx, whatever base the VMM names', async (t) => {
  const served = new ServedVm();
  const { frontend } = served;
  await frontend.connect();
  const start = frontend.start.bind(frontend);
  // cloud-hypervisor passes the avail index, which is 1 for the primed statistics queue.
  frontend.start = (features, queues) =>
    start(
      features,
      queues.map((queue) => ({ ...queue, base: queue.index === 2 ? 1 : 0 })),
    );
  const driver = await BalloonDriver.start(frontend, { stats: () => [[4, 12345n]] });
  await served.until((view) => view.stats !== null, 'the primed statistics are seen');
  t.equal(served.view.stats?.['VIRTIO_BALLOON_S_MEMFREE'], 12345);
  t.ok(await served.device.refreshStats(5000), 'and the buffer goes round');
  t.equal(driver.statsRequests, 1);
  await served.close();
});

void t.test('rule 12: a private mapping of the VMM is recognised', (t) => {
  const fd = createMemfd('shared', 8192);
  const mapping = Mapping.map(fd, 0, 8192);
  const line = (pattern: RegExp): bigint => {
    const found = readFileSync('/proc/self/maps', 'latin1')
      .split('\n')
      .find((text) => pattern.test(text));
    return BigInt(`0x${found?.split('-')[0] ?? '0'}`);
  };
  t.equal(mapsPrivately(process.pid, line(/memfd:shared/) + 4096n), false, 'shared');
  t.equal(mapsPrivately(process.pid, line(/ r..p \S+ \S+ [1-9].*\/node$/)), true, 'private');
  t.equal(mapsPrivately(process.pid, line(/\[heap\]/)), null, 'no file');
  mapping.close();
  closeFd(fd);
  t.end();
});

whereReported('rule 14: pages of the guest that need not be touched are not', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  await driver.inflate(pfns(FIRST, 300));
  const before = frontend.ram.allocatedBytes();
  await driver.inflate(pfns(FIRST + 300, 1000));
  await driver.deflate(pfns(FIRST, 1300));
  await driver.report([{ gpa: FIRST * PAGE_BYTES, len: 4 * 2 ** 20 }]);
  // The reporting ring's indirect table is the only page that comes into being.
  t.ok(frontend.ram.allocatedBytes() - before <= PAGE_BYTES);
  await served.close();
});

inEachOrder('rule 15: the target survives a reset of the guest, actual does not', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  served.vm.setTarget({ balloonBytes: 2 ** 20 });
  driver.followTarget();
  await served.until((view) => view.balloon.actualBytes === 2 ** 20, 'inflated');
  await driver.idle();
  t.equal(served.saw('target-reached').length, 1);
  await driver.reset();
  t.equal(served.view.state, 'stopped');
  t.equal(served.view.balloon.actualBytes, 2 ** 20, 'as it was, should the VM be paused');
  t.match(served.view.verdict, /its balloon driver stopped; the balloon held 1 MiB/);
  t.equal(served.view.balloon.targetBytes, 2 ** 20);
  t.same([...(await frontend.getConfig(4, 4))], [0, 0, 0, 0]);
  const again = await BalloonDriver.start(frontend);
  await served.until(({ state }) => state === 'running', 'a new driver runs');
  t.equal(served.view.balloon.actualBytes, 0, 'a new driver has an empty balloon');
  again.followTarget();
  await served.until((view) => view.balloon.actualBytes === 2 ** 20, 'inflated again');
  await again.idle();
  t.same(frontend.protocolViolations, []);
  await served.close();
});

for (const ring of ['split', 'packed'] as const) {
  whereAsked(`rule 15: a VM that was only paused keeps its balloon (${ring})`, async (t) => {
    const features = [
      'VIRTIO_BALLOON_F_MUST_TELL_HOST',
      'VIRTIO_BALLOON_F_STATS_VQ',
      'VIRTIO_F_RING_PACKED',
    ] as const;
    const packed = ring === 'packed' ? bits(F_RING_PACKED) : 0n;
    const { served, frontend, driver } = await ServedVm.running({
      features: ring === 'packed' ? features : features.slice(0, 2),
      frontend: { queueCount: 3 },
      driver: { features: LINUX_FEATURES | packed },
    });
    await served.vm.setInhibited('maintenance');
    await driver.inflate(pfns(FIRST, 256));
    const bases = await frontend.stop();
    t.equal(served.view.balloon.actualBytes, 2 ** 20, 'paused or reset: not known yet');
    t.same(
      [...(await frontend.getConfig(4, 4))],
      [0, 0, 0, 0],
      'the next driver is told of an empty balloon',
    );
    await frontend.start(
      driver.ackedFeatures,
      frontend.queues.map((queue) => ({ ...queue, base: bases.get(queue.index) ?? 0 })),
    );
    await served.until((view) => view.state === 'running', 'runs again');
    t.equal(served.view.balloon.actualBytes, 2 ** 20);
    t.equal(served.view.balloon.pendingBytes, 2 ** 20, 'and the ledger was kept');
    t.ok(await served.device.refreshStats(5000), 'the held statistics buffer was not lost');
    await driver.deflate(pfns(FIRST, 256));
    t.equal(served.view.balloon.pendingBytes, 0);
    await served.close();
  });
}

whereReported('every combination of ring features carries the balloon', async (t) => {
  const extras = [F_INDIRECT_DESC, F_EVENT_IDX, F_RING_PACKED];
  const balloon = bits(BALLOON_F.MUST_TELL_HOST, BALLOON_F.STATS_VQ, BALLOON_F.REPORTING, F_VERSION_1);
  for (let set = 0; set < 8; set++) {
    const chosen = extras.filter((_, n) => ((set >> n) & 1) === 1);
    const { served, frontend, driver } = await ServedVm.running({
      features: [
        'VIRTIO_BALLOON_F_MUST_TELL_HOST',
        'VIRTIO_BALLOON_F_STATS_VQ',
        'VIRTIO_BALLOON_F_REPORTING',
        'VIRTIO_F_RING_PACKED',
      ],
      frontend: { queueCount: 4 },
      driver: { features: balloon | bits(...chosen), ringSize: 8 },
    });
    const pages = pfns(FIRST, 5000);
    await driver.inflate(pages);
    await driver.deflate(pages.slice(0, 1000));
    await driver.report([{ gpa: FIRST * PAGE_BYTES, len: 8 * PAGE_BYTES }]);
    for (let n = 0; n < 20; n++) if (!(await served.device.refreshStats(5000))) t.fail('statistics');
    t.equal(served.view.balloon.actualBytes, 4000 * PAGE_BYTES, `bits ${chosen.join(' ')}`);
    t.same(served.saw('driver-error'), []);
    t.same(frontend.protocolViolations, []);
    await served.close();
  }
});
