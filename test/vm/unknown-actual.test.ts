// A session that begins on rings that go on: of what the guest holds in its balloon nothing is known until its driver says so.
import { wallNow } from '../../src/os/clock.js';
import { OrderBook } from '../../src/vm/order-book.js';
import type { BalloonView } from '../../protocol/control/schema.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { eachOrder } from '../support/each-order.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { pfns, ServedVm } from '../support/served-vm.js';

const FIRST = 4096;
const HELD = 512;
const HELD_BYTES = HELD * PAGE_BYTES;

const whereAgain = eachOrder({ reconnects: true });

interface Again {
  served: ServedVm;
  driver: BalloonDriver;
}

/** A guest with HELD pages in its balloon, whose VMM has just connected to a daemon that knows nothing of it. */
async function again(book = new OrderBook()): Promise<Again> {
  const { served: before, frontend, driver } = await ServedVm.running();
  await driver.inflate(pfns(FIRST, HELD));
  const served = new ServedVm({ over: frontend, book });
  await frontend.reconnect(served.socket);
  await before.until(() => before.closed, 'the connection before is gone');
  await served.until(({ state }) => state === 'running', 'it runs again');
  return { served, driver };
}

whereAgain('the size is unknown until the driver writes it', async (t) => {
  const { served, driver } = await again();
  const { frontend } = served;
  t.match(served.view.balloon, { actualUnknown: true, actualBytes: 0, targetBytes: 0 });
  t.equal(served.view.verdict, null);
  await frontend.waitConfigChanges(1);
  await served.settle();
  t.equal(frontend.configChanges.length, 1, 'the target is announced once');
  t.same(served.saw('target-reached'), []);
  await driver.deflate(pfns(FIRST, 100));
  await served.until(({ balloon }) => !balloon.actualUnknown, 'the driver says it');
  t.equal(served.view.balloon.actualBytes, HELD_BYTES - 100 * PAGE_BYTES);
  t.same(frontend.protocolViolations, []);
  await served.close();
});

whereAgain('a driver that holds less or more walks to the target', async (t) => {
  for (const balloonBytes of [0, HELD_BYTES / 2, HELD_BYTES, 2 * HELD_BYTES]) {
    const { served, driver } = await again();
    served.vm.setTarget({ balloonBytes });
    driver.followTarget();
    await served.until(
      ({ balloon }) => !balloon.actualUnknown && balloon.actualBytes === balloonBytes,
      `it holds ${balloonBytes}`,
    );
    await driver.idle();
    t.equal(driver.balloonPfns.size, balloonBytes / PAGE_BYTES);
    t.equal(await driver.readTargetPages(), balloonBytes / PAGE_BYTES, 'no page is asked for any more');
    t.match(served.saw('target-reached'), [{ fields: { actualBytes: balloonBytes } }]);
    await served.close();
  }
});

whereAgain(
  'an order that holds for the name is reached when the driver says so, and never before',
  async (t) => {
    const book = new OrderBook();
    book.change('vm', { target: { of: 'balloon', bytes: HELD_BYTES, since: wallNow() } });
    const { served, driver } = await again(book);
    t.match(served.view.balloon, { actualUnknown: true, targetBytes: HELD_BYTES });
    t.equal(
      await driver.readTargetPages(),
      HELD + 1,
      'a driver that is where it should be would say nothing',
    );
    t.same(served.saw('target-reached'), []);
    driver.followTarget();
    await served.until(() => served.saw('target-reached').length > 0, 'it is reached');
    await driver.idle();
    t.match(served.view.balloon, { actualUnknown: false, actualBytes: HELD_BYTES });
    t.equal(driver.balloonPfns.size, HELD);
    await served.close();
  },
);

whereAgain('the same target is announced as long as the size is unknown, and then no more', async (t) => {
  const { served, driver } = await again();
  const { frontend } = served;
  await frontend.waitConfigChanges(1);
  const asked = [await driver.readTargetPages()];
  served.vm.setTarget({ balloonBytes: 0 });
  await frontend.waitConfigChanges(2);
  asked.push(await driver.readTargetPages());
  t.same(asked, [1, 2], 'for another size, because the last may be what it holds');
  await driver.deflate([...driver.balloonPfns]);
  await frontend.waitConfigChanges(3);
  t.match(served.view.balloon, { actualUnknown: false, actualBytes: 0 });
  served.vm.setTarget({ balloonBytes: 0 });
  await served.settle();
  t.equal(frontend.configChanges.length, 3);
  await served.close();
});

whereAgain('the ledger is learned from what the guest inflates and deflates', async (t) => {
  const { served, driver } = await again();
  const { ram } = served.frontend;
  const [known, unknown] = [pfns(FIRST + HELD, 10), pfns(FIRST, 10)];
  for (const pfn of [...known, ...unknown]) ram.fillPage(pfn, 1);
  await driver.tellPfns('inflate', known);
  t.match(
    served.view.balloon,
    { actualUnknown: true, actualBytes: 10 * PAGE_BYTES },
    'as far as it was seen',
  );
  await served.discarded();
  t.ok(known.every((pfn) => ram.pageIsZero(pfn)));
  t.ok(
    unknown.every((pfn) => ram.pageHolds(pfn, 1)),
    'of other pages nothing is known',
  );
  await driver.deflate(unknown);
  t.match(served.view.balloon, { actualUnknown: false, actualBytes: HELD_BYTES - 10 * PAGE_BYTES });
  await driver.deflate(pfns(FIRST + 10, HELD - 10));
  t.equal(served.view.balloon.actualBytes, 0);
  await served.close();
});

whereAgain('what is not known stays so over a pause, and ends with a reset', async (t) => {
  const { served, driver } = await again();
  const { frontend } = served;
  await frontend.pause();
  t.equal(served.view.state, 'stopped');
  t.equal(served.view.balloon.actualUnknown, true);
  t.equal(await driver.readTargetPages(), 0, 'another driver may come, which is asked for no page more');
  await frontend.resume();
  await served.until(({ state }) => state === 'running', 'it goes on');
  t.equal(served.view.balloon.actualUnknown, true);
  await driver.reset();
  await BalloonDriver.start(frontend);
  await served.until(({ state }) => state === 'running', 'a new driver runs');
  t.match(served.view.balloon, { actualUnknown: false, actualBytes: 0 });
  await served.close();
});

whereAgain('a size that is unknown is so for the next daemon, until the driver says it', async (t) => {
  const daemon = await DaemonProcess.start({ supervise: true });
  t.teardown(() => daemon.stop());
  const { served: before, frontend, driver } = await ServedVm.running();
  await driver.inflate(pfns(FIRST, HELD));
  await frontend.reconnect(daemon.socketPath);
  await before.until(() => before.closed, 'the connection before is gone');
  const of = async (condition: (balloon: BalloonView) => boolean, what: string): Promise<void> =>
    eventually(
      async () => {
        const [vm] = await daemon.list();
        return vm?.state === 'running' && condition(vm.balloon);
      },
      () => `${what}; ${daemon.log}`,
    );
  await of(({ actualUnknown }) => actualUnknown, 'it runs');
  await daemon.crash();
  await of(({ actualUnknown }) => actualUnknown, 'the next daemon knows no more');
  t.notMatch(daemon.log, /target-reached/);
  await driver.deflate(pfns(FIRST, 100));
  await of(
    ({ actualUnknown, actualBytes }) => !actualUnknown && actualBytes === HELD_BYTES - 100 * PAGE_BYTES,
    'the driver says it',
  );
  await daemon.crash();
  await of(({ actualUnknown }) => !actualUnknown, 'and the daemon after that one knows it');
  t.same(frontend.protocolViolations, []);
  frontend.close();
});
