// Huge pages that a guest waits for, or misses since its reset, over the end of the daemon.
import type { Test } from 'tap';
import { DaemonProcess } from '../support/daemon.js';
import { BALLOON_F, BalloonDriver } from '../support/balloon-driver.js';
import { Bystander } from '../support/bystander.js';
import { eventually } from '../support/deadline.js';
import { eachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { HUGE_PAGE_BYTES, OwnPool } from '../support/huge-pages.js';
import { pfns } from '../support/served-vm.js';
import { bits, u32s } from '../support/wire.js';

const HUGE = HUGE_PAGE_BYTES / PAGE_BYTES;
const RAM_PAGES = 16;
const COUNT = 8;
const GIVEN = pfns(4 * HUGE, COUNT * HUGE);

/** cloud-hypervisor hides from its guest that it must tell. */
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST) });

interface Scene {
  daemon: DaemonProcess;
  pool: OwnPool;
  frontend: Frontend;
  driver: BalloonDriver;
  /** Another program gives the pages back that it took of the balloon. */
  giveBack: () => void;
}

/** A guest gave up eight huge pages, and another program took them. */
async function taken(t: Test, pages: number): Promise<Scene> {
  const daemon = await DaemonProcess.start({
    supervise: true,
    config: '[[socket]]\npath = "{folder}/vhost.sock"\nname = "huge"\n',
  });
  t.teardown(() => daemon.stop());
  const pool = OwnPool.make(t, RAM_PAGES);
  const lenBytes = RAM_PAGES * HUGE_PAGE_BYTES;
  const ram = new GuestRam([{ gpa: 0, lenBytes, file: pool.createFile(lenBytes) }]);
  const frontend = new Frontend({ socket: daemon.socketPath, ram });
  t.teardown(() => frontend.close());
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend);
  for (let page = 0; page < RAM_PAGES; page++) ram.fillPage(page * HUGE, 1);
  await driver.inflate(GIVEN);
  await eventually(
    () => pool.free === COUNT,
    () => `the pool has ${pool.free} of ${COUNT} pages`,
  );
  return { daemon, pool, frontend, driver, giveBack: pool.take(pages) };
}

function survives({ ram }: Frontend): boolean {
  for (const pfn of GIVEN) if (pfn % HUGE === 3) ram.fillPage(pfn, 2);
  return ram.regions.every(({ mapping }) => mapping.faults === 0);
}

const isShort = (daemon: DaemonProcess, short = true): Promise<unknown> =>
  daemon.until(
    'huge',
    ({ diagnosis }) => (diagnosis?.code === 'huge-pages-short') === short,
    `the verdict says so: ${short}`,
  );

whereTold('an ack that waits for huge pages comes from the next daemon', async (t) => {
  const { daemon, frontend, driver, giveBack } = await taken(t, COUNT);
  let acked = false;
  const deflated = driver.deflate(GIVEN).then(() => (acked = true));
  await isShort(daemon);
  const neighbour = await Bystander.connect(daemon.socketPath);
  for (let crash = 0; crash < 2; crash++) {
    await daemon.crash();
    await isShort(daemon);
    await neighbour.works();
    t.notOk(acked);
  }
  giveBack();
  await deflated;
  t.ok(survives(frontend));
  await isShort(daemon, false);
  await neighbour.close();
});

whereTold('a guest that was reset gets what it misses from the next daemon', async (t) => {
  for (const started of [false, true]) {
    const { daemon, pool, frontend, driver, giveBack } = await taken(t, COUNT - 3);
    await driver.reset();
    if (started) await BalloonDriver.start(frontend);
    await isShort(daemon);
    await daemon.crash();
    await isShort(daemon);
    giveBack();
    await isShort(daemon, false);
    t.equal(pool.free, 0, `the guest has all of its memory, a driver runs: ${started}`);
    t.ok(survives(frontend));
    frontend.close();
  }
});

whereTold('a VMM that ends while its guest waits leaves nothing behind', async (t) => {
  const { daemon, pool, frontend, driver, giveBack } = await taken(t, COUNT);
  const gpa = 2 * HUGE_PAGE_BYTES;
  frontend.ram.write(gpa, u32s(...GIVEN.slice(0, 256)));
  driver.ring('deflate').add([{ gpa, len: 1024 }]);
  driver.ring('deflate').kick();
  await isShort(daemon);
  frontend.close();
  await eventually(
    async () => (await daemon.list()).length === 0,
    () => 'the daemon lets go of the VM',
  );
  giveBack();
  await eventually(
    () => pool.free === RAM_PAGES,
    () => `the pool has ${pool.free} of ${RAM_PAGES} pages again`,
  );
  t.notMatch(daemon.log, /daemon-failed|vm-dropped/);
});
