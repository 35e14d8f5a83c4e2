// Rule 11: a VMM that cuts its memory file short stops its own balloon, and nothing else.
import { fstatSync, ftruncateSync } from 'node:fs';
import type { Test } from 'tap';
import {
  BALLOON_F,
  BalloonDriver,
  LINUX_FEATURES,
  type BalloonDriverOptions,
} from '../support/balloon-driver.js';
import { Bystander } from '../support/bystander.js';
import { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { F_INDIRECT_DESC } from '../support/guest-ring.js';
import { HUGE_PAGE_BYTES, reserveHugePages } from '../support/huge-pages.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { bits, u32s } from '../support/wire.js';

const MIB = 2 ** 20;

interface Case {
  /** How much of the file is left, and what is touched then. */
  leftBytes: number;
  touch: (driver: BalloonDriver, frontend: Frontend) => void;
  /** What the guest said before anything was known to be gone (default 0). */
  inflatedBytes?: number;
  driver?: BalloonDriverOptions;
  /** Features without which it cannot be touched. */
  features?: bigint;
}

/** Where the second half of 64 MiB begins, and a page in it. */
const HALF = 32 * MIB;
const GONE = 48 * MIB;

const CASES: Record<string, Case> = {
  'its rings': {
    leftBytes: 0,
    touch: (driver) => driver.ring('inflate').kick({ force: true }),
  },
  'a buffer of page frame numbers': {
    leftBytes: HALF,
    // Whose pages are discarded before the ack.
    driver: { features: LINUX_FEATURES & ~bits(BALLOON_F.MUST_TELL_HOST) },
    touch: (driver) => {
      driver.ring('inflate').add([{ gpa: GONE, len: 64 }]);
      driver.ring('inflate').kick();
    },
  },
  'all but one page of what its driver uses': {
    features: bits(F_INDIRECT_DESC),
    leftBytes: HALF,
    driver: { areaGpa: HALF - PAGE_BYTES },
    touch: (driver) => {
      driver.ring('deflate').add([{ gpa: 0, len: 4 }], { indirect: true });
      driver.ring('deflate').kick();
    },
  },
  'pages that are given up': {
    leftBytes: HALF,
    inflatedBytes: MIB,
    touch: (driver, { ram }) => {
      ram.write(2 * MIB, u32s(...pfns(GONE / PAGE_BYTES, 256)));
      driver.ring('inflate').add([{ gpa: 2 * MIB, len: 1024 }]);
      driver.ring('inflate').kick();
    },
  },
  'pages that are reported free': {
    features: bits(BALLOON_F.REPORTING),
    leftBytes: HALF,
    touch: (driver) => {
      driver.ring('reporting').add([{ gpa: GONE, len: MIB, writable: true }]);
      driver.ring('reporting').kick();
    },
  },
};

function file({ ram }: Frontend): number {
  const [region] = ram.regions;
  if (region === undefined) throw new Error('no memory');
  return region.file.fd;
}

/** The balloon is stopped with a word on why, once; the connection lives, and so does the neighbour. */
async function isStopped(
  t: Test,
  served: ServedVm,
  driver: BalloonDriver,
  neighbour: Bystander,
): Promise<void> {
  const { frontend } = served;
  await served.until(() => served.saw('memory-lost').length > 0, 'the loss is seen');
  t.equal(served.view.state, 'stopped');
  t.match(served.view.verdict, /cut the file.*short.*truncating.*restart the VM/);
  for (const index of driver.queueNumbers.values()) {
    t.equal(frontend.takeRingErrors(index), Number(frontend.hearsErrors), `err of ring ${index}`);
  }
  const { balloon } = served.view;
  for (let round = 0; round < 3; round++) {
    for (const role of driver.queueNumbers.keys()) driver.ring(role).kick();
    await served.settle();
  }
  t.same(served.view.balloon, balloon, 'kicks do nothing any more');
  served.vm.setTarget({ balloonBytes: MIB });
  t.equal(await driver.readTargetPages(), MIB / PAGE_BYTES, 'configuration is still answered');
  await frontend.writeConfigField(4, 1);
  await neighbour.works();
  t.equal(served.saw('memory-lost').length, 1);
  for (const event of ['driver-error', 'discard-failed', 'vm-dropped', 'vm-stopped'] as const) {
    t.same(served.saw(event), [], event);
  }
  t.notOk(served.closed);
  t.same(frontend.protocolViolations, []);
}

for (const [what, { leftBytes, touch, driver: options, features, inflatedBytes = 0 }] of Object.entries(
  CASES,
)) {
  eachOrder({ ...(features !== undefined && { features }) })(
    `rule 11: gone are ${what}`,
    async (t, order) => {
      const neighbour = await Bystander.start();
      const { served, frontend, driver } = await ServedVm.running(
        options === undefined ? {} : { driver: options },
      );
      frontend.ram.fillPage(0, 1);
      ftruncateSync(file(frontend), leftBytes);
      touch(driver, frontend);
      await isStopped(t, served, driver, neighbour);
      t.equal(served.view.balloon.inflatedBytesTotal, inflatedBytes, 'nothing was made of zeros');
      if (leftBytes > 0) t.ok(frontend.ram.pageHolds(0, 1), 'zeros were not taken for page frame numbers');
      await driver.reset();
      // cloud-hypervisor looks at the rings itself.
      if (order.base !== 'driver') {
        const again = await BalloonDriver.start(frontend, options);
        again.ring('inflate').kick();
        await served.settle();
      }
      t.equal(served.view.state, 'stopped', 'nor is it started again');
      t.equal(served.saw('memory-lost').length, 1);
      await served.close();
      await neighbour.close();
    },
  );
}

inEachOrder('rule 11: other memory is served again', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  const [region] = frontend.ram.regions;
  if (region === undefined) throw new Error('no memory');
  ftruncateSync(region.file.fd, 0);
  driver.ring('inflate').kick({ force: true });
  await served.until(() => served.saw('memory-lost').length > 0, 'the loss is seen');
  await driver.reset();
  await frontend.removeRegion(region);
  await frontend.addRegion({ gpa: 0, lenBytes: 64 * MIB });
  const again = await BalloonDriver.start(frontend);
  await served.until(({ state }) => state === 'running', 'it runs');
  t.equal(served.view.verdict, null);
  await again.inflate(pfns(4096, 10));
  await served.discarded();
  t.equal(served.view.balloon.actualBytes, 10 * PAGE_BYTES);
  await served.close();
});

inEachOrder('rule 11: huge pages', async (t) => {
  if (!reserveHugePages(t, 16)) {
    t.pass('hugetlbfs', { skip: 'no huge pages can be reserved here' });
    return;
  }
  const neighbour = await Bystander.start();
  for (const leftBytes of [0, 8 * MIB]) {
    const ram = GuestRam.likeQemu(16 * MIB, { hugePageBytes: HUGE_PAGE_BYTES });
    const { served, frontend, driver } = await ServedVm.running({
      frontend: { ram },
      driver: { areaGpa: 4 * MIB },
    });
    ftruncateSync(file(frontend), leftBytes);
    driver.ring('inflate').add([{ gpa: 15 * MIB, len: 64 }]);
    driver.ring('inflate').kick();
    await isStopped(t, served, driver, neighbour);
    await served.close();
  }
  await neighbour.close();
});

inEachOrder(
  'rule 11: the next daemon goes on with all that, whether or not the one before it saw the loss',
  async (t) => {
    for (const seen of [true, false]) await t.test(`seen: ${seen}`, (t) => handedOver(t, seen));
    if (!reserveHugePages(t, 16)) return;
    await t.test('huge pages', (t) => handedOver(t, false, HUGE_PAGE_BYTES));
  },
);

async function handedOver(t: Test, seen: boolean, hugePageBytes?: number): Promise<void> {
  const daemon = await DaemonProcess.start({
    supervise: true,
    config: '[[socket]]\npath = "{folder}/vhost.sock"\nname = "cut"\n',
  });
  t.teardown(() => daemon.stop());
  const ram = GuestRam.likeQemu(16 * MIB, hugePageBytes === undefined ? {} : { hugePageBytes });
  const frontend = new Frontend({ socket: daemon.socketPath, ram });
  await frontend.connect();
  const driver = await BalloonDriver.start(frontend, { areaGpa: 4 * MIB });
  await driver.inflate(pfns(2048, 512));
  const neighbour = await Bystander.connect(daemon.socketPath);
  const fd = file(frontend);
  ftruncateSync(fd, 2 * MIB);
  if (seen) {
    driver.ring('inflate').kick({ force: true });
    await daemon.until('cut', ({ verdict }) => verdict !== null, 'the loss is seen', 5000);
    for (const index of driver.queueNumbers.values()) frontend.takeRingErrors(index);
  }
  const told = (): number => daemon.log.split('"memory-lost"').length - 1;
  // SIGKILL would take a line along that was not written yet.
  const isTold = (times: number): Promise<void> =>
    eventually(
      () => told() >= times,
      () => `told ${told()} of ${times} times`,
    );
  for (let restart = 0; restart < 2; restart++) {
    await isTold(Number(seen) + restart);
    await daemon.crash();
    const { state, verdict, balloon } = await daemon.show('cut');
    t.match({ state, verdict }, { state: 'stopped', verdict: /cut the file.*short.*restart the VM/ });
    t.match(balloon, { actualBytes: 2 * MIB, inflatedBytesTotal: 2 * MIB }, 'what the guest had given up');
    t.equal(fstatSync(fd).size, 2 * MIB, 'the file stays as it is');
    for (const role of driver.queueNumbers.keys()) driver.ring(role).kick({ force: true });
    const errors = [...driver.queueNumbers.values()].map((index) => frontend.takeRingErrors(index));
    t.same(
      new Set(errors),
      new Set([seen || restart > 0 ? 0 : Number(frontend.hearsErrors)]),
      'the driver is told once',
    );
    t.equal(await driver.readTargetPages(), 0, 'configuration is answered');
    await neighbour.works();
  }
  await isTold(seen ? 3 : 2);
  t.equal(told(), seen ? 3 : 2, 'each daemon says so');

  // The VMM may share other memory, as at the next start of its guest.
  await driver.reset();
  for (const region of [...ram.regions]) await frontend.removeRegion(region);
  await frontend.addRegion({ gpa: 0, lenBytes: 16 * MIB });
  const again = await BalloonDriver.start(frontend, { areaGpa: 4 * MIB });
  await again.inflate(pfns(3072, 10));
  await daemon.until(
    'cut',
    ({ balloon }) => balloon.actualBytes === 10 * PAGE_BYTES,
    'it is served again',
    5000,
  );
  t.equal((await daemon.show('cut')).verdict, null);
  frontend.close();
  neighbour.close().catch(() => undefined);
  t.notMatch(daemon.log, /resume-failed|vm-dropped|vm-stopped|driver-error/);
}
