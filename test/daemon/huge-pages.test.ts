// Memory on hugetlbfs: a page that was discarded has no claim to the pool any more, and whoever touches it while the pool is
// empty dies of SIGBUS. So a guest has its pages again before it uses them, or they are never discarded.
import { ftruncateSync } from 'node:fs';
import type { Test } from 'tap';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from '../support/balloon-driver.js';
import { Bystander } from '../support/bystander.js';
import { eventually } from '../support/deadline.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { HUGE_PAGE_BYTES, OwnPool } from '../support/huge-pages.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { bits, encodeVringState, REQUEST, u32s } from '../support/wire.js';

/** 4 KiB pages of a huge page. */
const HUGE = HUGE_PAGE_BYTES / PAGE_BYTES;
/** Of the guest; the driver's own rings and buffers are in the first. */
const RAM_PAGES = 16;
/** Huge pages that the tests give up and take back. */
const FIRST = 4;
const COUNT = 8;
const GIVEN = pfns(FIRST * HUGE, COUNT * HUGE);
const NEED_NOT_TELL = LINUX_FEATURES & ~bits(BALLOON_F.MUST_TELL_HOST);

/** cloud-hypervisor hides from its guest that it must tell. */
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST) });

type Options = NonNullable<Parameters<typeof ServedVm.running>[0]>;
type Running = Awaited<ReturnType<typeof ServedVm.running>>;

/** A guest all of whose memory was touched, with a pool that holds this and nothing else. */
async function inPool(
  t: Test,
  options: Options,
  test: (running: Running, pool: OwnPool) => Promise<void>,
): Promise<void> {
  const pool = OwnPool.make(t, RAM_PAGES);
  const ram = new GuestRam([
    { gpa: 0, lenBytes: RAM_PAGES * HUGE_PAGE_BYTES, file: pool.createFile(RAM_PAGES * HUGE_PAGE_BYTES) },
  ]);
  const running = await ServedVm.running({ ...options, frontend: { ram } });
  for (let page = 0; page < RAM_PAGES; page++) ram.fillPage(page * HUGE, 1);
  t.equal(pool.free, 0, 'the guest has all of the pool');
  await test(running, pool);
  await running.served.close();
}

/** How often the guest touched memory for which there was no page: its VMM would be dead. */
function deaths(ram: GuestRam): number {
  return ram.regions.reduce((sum, { mapping }) => sum + mapping.faults, 0);
}

function touchAll(ram: GuestRam): void {
  for (let page = FIRST; page < FIRST + COUNT; page++) ram.fillPage(page * HUGE + 7, 3);
}

whereTold('a deflate is acked when its pages have memory again', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    t.equal(pool.free, COUNT, 'the pool got them');
    t.same(
      served.vm.figures.pool,
      { pageBytes: HUGE_PAGE_BYTES, discards: true },
      'and the rest of the host did not, which the policy knows',
    );
    await driver.deflate(GIVEN);
    t.equal(pool.free, 0, 'and the guest has them again before it touches them');
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
    t.same(served.saw('huge-pages-short'), [], 'nothing was short');
  });
});

whereTold('while the pool has none the ack waits, and nothing else does', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    const giveBack = pool.take(COUNT);
    let acked = false;
    const deflated = driver.deflate(GIVEN).then(() => (acked = true));
    await served.until(({ diagnosis }) => diagnosis?.code === 'huge-pages-short', 'the verdict says so');
    t.match(
      served.view.verdict,
      /^the guest takes memory back and waits for .*, because the pool of \d+ pages of 2 MiB has \d+ free and \d+ of these reserved, and the mount of its file may have 0 more \(allocate: ENOSPC\): stop the program/,
    );
    t.match(served.saw('huge-pages-short'), [{ fields: { guestWaits: true, pageBytes: HUGE_PAGE_BYTES } }]);
    t.notOk(acked);
    t.ok(await served.device.refreshStats(5000), 'the statistics go on');
    await driver.report([{ gpa: 2 * HUGE_PAGE_BYTES, len: PAGE_BYTES }]);
    giveBack();
    await deflated;
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
    await served.until(({ diagnosis }) => diagnosis === null, 'the verdict is over');
    t.equal(served.saw('huge-pages-enough').length, 1);
  });
});

whereTold('the first part of a huge page that is taken back brings all of it', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    await driver.deflate([FIRST * HUGE + 100]);
    t.equal(pool.free, COUNT - 1);
    t.equal(
      served.view.balloon.pendingBytes,
      HUGE_PAGE_BYTES - PAGE_BYTES,
      'the rest owes its discard again',
    );
    frontend.ram.fillPage(FIRST * HUGE + 100, 5);
    await driver.inflate([FIRST * HUGE + 100]);
    await served.discarded();
    t.equal(pool.free, COUNT);
  });
});

whereTold('a driver that need not tell, and reports: pages are counted and kept', async (t) => {
  await inPool(t, { driver: { features: NEED_NOT_TELL } }, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    t.equal(served.view.balloon.actualBytes, GIVEN.length * PAGE_BYTES);
    await driver.report([{ gpa: 2 * HUGE_PAGE_BYTES, len: HUGE_PAGE_BYTES }]);
    t.equal(pool.free, 0, 'the pool got nothing');
    t.match(served.view.diagnosis, { code: 'huge-pages-kept' });
    t.same(
      served.saw('huge-pages-kept').map(({ fields }) => fields),
      [{ why: 'driver' }, { why: 'reports' }],
    );
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
  });
});

whereTold('unless the operator wants them', async (t) => {
  // Such a driver gives up whole huge pages with a buffer or never.
  const options = { discardsUntold: true, driver: { features: NEED_NOT_TELL, pfnsPerBuffer: HUGE } };
  await inPool(t, options, async ({ served, driver }, pool) => {
    await driver.inflate(GIVEN);
    t.equal(pool.free, COUNT);
    await driver.report([{ gpa: 2 * HUGE_PAGE_BYTES, len: HUGE_PAGE_BYTES }]);
    t.equal(pool.free, COUNT + 1);
    t.same(served.saw('huge-pages-kept'), []);
    t.equal(served.view.diagnosis, null);
  });
});

whereTold('a guest that is reset has all of its memory before the VMM hears of it', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    await driver.reset();
    // A page that is only reserved counts as taken, too.
    t.equal(pool.free, 0);
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
    const again = await BalloonDriver.start(frontend);
    await again.inflate(GIVEN);
    await served.discarded();
    await eventually(
      () => pool.free === COUNT,
      () => `the pool has ${pool.free} pages of the next driver`,
    );
    t.same(served.saw('huge-pages-short'), []);
  });
});

whereTold('and as much of it as the pool has: the verdict says what is missing', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    const giveBack = pool.take(COUNT - 3);
    await driver.reset();
    t.equal(pool.free, 0, 'the guest has what there was');
    await served.until(({ diagnosis }) => diagnosis?.code === 'huge-pages-short', 'the verdict says so');
    t.match(
      served.view.verdict,
      /^the guest was reset or its VM paused, and 10 MiB of its memory have no huge page/,
    );
    const again = await BalloonDriver.start(frontend);
    t.ok(await served.device.refreshStats(5000), 'the next driver is served');
    giveBack();
    await served.until(({ diagnosis }) => diagnosis === null, 'the pool gave the rest');
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
    await again.inflate(GIVEN);
    await served.discarded();
    t.equal(pool.free, COUNT);
  });
});

whereTold('a VM that was paused goes on with its balloon, and the pool gets the pages again', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    await frontend.pause();
    t.equal(pool.free, 0, 'nobody knows yet that it was not reset');
    await frontend.resume();
    await served.until(({ state }) => state === 'running', 'it runs');
    await eventually(
      () => pool.free === COUNT,
      () => `the pool has ${pool.free} of ${COUNT} pages again`,
    );
    await driver.deflate(GIVEN);
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
  });
});

for (const discardsUntold of [false, true]) {
  const how = discardsUntold ? 'that were discarded' : 'that were kept';
  inEachOrder(
    `a guest that need not tell has pages in use, ${how}; a pause takes none of them`,
    async (t) => {
      const options = { discardsUntold, driver: { features: NEED_NOT_TELL, pfnsPerBuffer: HUGE } };
      await inPool(t, options, async ({ served, frontend, driver }) => {
        await driver.inflate(GIVEN);
        touchAll(frontend.ram);
        await frontend.pause();
        await frontend.resume();
        await served.until(({ state }) => state === 'running', 'it runs');
        // Its ack comes when the guest has all of its pages again.
        await driver.deflate([2 * HUGE]);
        t.equal(served.view.balloon.pendingBytes, 0, 'nothing owes its discard');
        await served.discarded();
        for (let page = FIRST; page < FIRST + COUNT; page++) {
          t.ok(frontend.ram.pageHolds(page * HUGE + 7, 3), `huge page ${page} is as the guest left it`);
        }
      });
    },
  );
}

whereTold('a guest that gives anew what it misses since its reset misses it no longer', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    const giveBack = pool.take(COUNT);
    await driver.reset();
    const again = await BalloonDriver.start(frontend);
    await served.until(({ diagnosis }) => diagnosis?.code === 'huge-pages-short', 'the verdict says so');
    await again.inflate(GIVEN);
    await served.until(({ diagnosis }) => diagnosis === null, 'the verdict is over');
    t.equal(pool.free, 0, 'though the pool has none');
    giveBack();
    await again.deflate(GIVEN);
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
  });
});

whereTold('a request that would stop the device and is refused leaves it as it was', async (t) => {
  await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
    await driver.inflate(GIVEN);
    await served.discarded();
    const refused = frontend.request(REQUEST.SET_VRING_ENABLE, encodeVringState(99, 0), { needReply: true });
    await t.rejects(refused, /refused/);
    t.equal(served.view.state, 'running');
    await eventually(
      () => pool.free === COUNT,
      () => `the pool has ${pool.free} of ${COUNT} pages again`,
    );
    await driver.deflate(GIVEN);
    t.equal(pool.free, 0);
    touchAll(frontend.ram);
    t.equal(deaths(frontend.ram), 0);
  });
});

whereTold('memory that goes away while a guest waits for it ends the wait, and nothing else', async (t) => {
  const neighbour = await Bystander.start();
  for (const how of ['cut short', 'taken away'] as const) {
    await inPool(t, {}, async ({ served, frontend, driver }, pool) => {
      await driver.inflate(GIVEN);
      await served.discarded();
      const giveBack = pool.take(COUNT);
      const gpa = 2 * HUGE_PAGE_BYTES;
      frontend.ram.write(gpa, u32s(...GIVEN.slice(0, 256)));
      driver.ring('deflate').add([{ gpa, len: 1024 }]);
      driver.ring('deflate').kick();
      await served.until(({ diagnosis }) => diagnosis?.code === 'huge-pages-short', 'the guest waits');
      const [region] = frontend.ram.regions;
      if (how === 'cut short') ftruncateSync(region?.file.fd ?? -1, 0);
      else await frontend.forgetMemory();
      giveBack();
      await served.until(({ diagnosis }) => diagnosis?.code !== 'huge-pages-short', `it is ${how}`);
      await neighbour.works();
      t.same(served.saw('vm-dropped'), []);
    });
  }
  await neighbour.close();
});

inEachOrder('a VM counts where most of its memory is', async (t) => {
  const pool = OwnPool.make(t, RAM_PAGES);
  const lenBytes = RAM_PAGES * HUGE_PAGE_BYTES;
  const inPool = { pageBytes: HUGE_PAGE_BYTES, discards: false };
  for (const [more, expected] of [
    [0, inPool],
    [1, null],
  ] as const) {
    const ram = new GuestRam([
      { gpa: 0, lenBytes, file: pool.createFile(lenBytes) },
      { gpa: 2 ** 32, lenBytes: lenBytes + more * HUGE_PAGE_BYTES },
    ]);
    const { served } = await ServedVm.running({ frontend: { ram }, driver: { features: NEED_NOT_TELL } });
    t.same(served.vm.figures.pool, expected);
    await served.close();
  }
});
