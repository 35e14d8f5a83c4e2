// Rule 16: what was discarded stays absent from the host; what is there again is discarded again, and nothing that a guest may use.
import type { Test } from 'tap';
import { fileBytes } from '../../src/os/file.js';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from '../support/balloon-driver.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { HugeRam } from '../support/huge-ram.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { eventually } from '../support/deadline.js';
import { bits } from '../support/wire.js';

const MIB = 2 ** 20;
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST) });
const FIRST = 4096;
const PAGES = pfns(FIRST, 600);
const BYTES = PAGES.length * PAGE_BYTES;

type Running = Awaited<ReturnType<typeof ServedVm.running>>;

/** Whoever reads guest memory through a mapping fills its holes. */
function touch({ frontend }: Pick<Running, 'frontend'>, pages: readonly number[]): void {
  const byte = new Uint8Array(1);
  for (const pfn of pages) {
    const region = frontend.ram.find(pfn * PAGE_BYTES, PAGE_BYTES);
    region.mapping.read(pfn * PAGE_BYTES - region.gpa, byte, 0, 1);
  }
}

/** Lets the daemon look until `condition` holds, as its watch does every few seconds. */
async function looked(
  { served }: Pick<Running, 'served'>,
  condition: () => boolean,
  what: string,
): Promise<void> {
  await eventually(
    () => {
      served.vm.recheckPinned(false);
      return condition();
    },
    () => `${what}; the VM is ${JSON.stringify(served.view)}`,
    2,
  );
}

/** Looks that many times, with all that follows from each. */
async function looks({ served }: Pick<Running, 'served'>, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    served.vm.recheckPinned(false);
    await served.settle();
  }
}

/** A VM whose balloon holds PAGES, which are gone from the host, and next to them a page of the guest. */
async function ballooned(features = LINUX_FEATURES): Promise<Running> {
  const running = await ServedVm.running({ driver: { features } });
  const { served, frontend, driver } = running;
  for (const pfn of [...PAGES, FIRST - 1, FIRST + 600]) frontend.ram.fillPage(pfn, 1);
  await driver.inflate(PAGES);
  await served.discarded();
  await looked(running, () => served.view.balloon.refilledBytes === 0, 'it is compared');
  return running;
}

/** Nothing but what is in the balloon was discarded. */
async function end(t: Test, { served, frontend }: Running): Promise<void> {
  t.ok(
    [FIRST - 1, FIRST + 600].every((pfn) => frontend.ram.pageHolds(pfn, 1)),
    'pages beside the balloon stay',
  );
  await served.close();
}

whereTold('what somebody touched is discarded again, and that is told', async (t) => {
  const running = await ballooned();
  const { served, frontend } = running;
  const before = frontend.ram.allocatedBytes();
  touch(running, PAGES);
  t.equal(frontend.ram.allocatedBytes() - before, BYTES);
  await looked(running, () => frontend.ram.allocatedBytes() === before, 'all of it is gone');
  await looked(running, () => served.view.balloon.refilledBytes === 0, 'that is known');
  await looks(running, 1);
  t.match(served.saw('pages-refilled'), [{ fields: { refilledBytes: BYTES, pinnedBytes: 0 } }]);
  t.equal(served.saw('pages-absent').length, 1);
  t.equal(served.view.verdict, null);
  t.equal(served.view.balloon.pinnedBytes, 0);
  await end(t, running);
});

whereTold('what came back is the guest’s use of memory until it is discarded again', async (t) => {
  const running = await ballooned();
  const { served } = running;
  t.equal(served.device.guestUse().discardedBytes, BYTES);
  await served.vm.setInhibited('a dump');
  touch(running, PAGES);
  await looked(running, () => served.view.balloon.refilledBytes === BYTES, 'it is found');
  t.equal(served.device.guestUse().discardedBytes, 0);
  await looks(running, 10);
  t.equal(served.view.balloon.refilledBytes, BYTES, 'nothing is discarded while inhibited');
  t.equal(served.view.balloon.pendingBytes, 0);
  await served.vm.setInhibited(null);
  await looked(running, () => served.view.balloon.refilledBytes === 0, 'allowed');
  await served.discarded();
  t.equal(served.device.guestUse().discardedBytes, BYTES);
  await end(t, running);
});

inEachOrder('of a driver that need not tell, it is said and nothing is discarded', async (t) => {
  const running = await ballooned(LINUX_FEATURES & ~bits(BALLOON_F.MUST_TELL_HOST));
  const { served, frontend } = running;
  touch(running, PAGES);
  await looked(running, () => served.view.balloon.refilledBytes === BYTES, 'it is found');
  const before = frontend.ram.allocatedBytes();
  // It uses them, and will tell when it likes.
  for (const pfn of PAGES) frontend.ram.fillPage(pfn, 2);
  await looks(running, 20);
  t.equal(frontend.ram.allocatedBytes(), before);
  t.ok(PAGES.every((pfn) => frontend.ram.pageHolds(pfn, 2)));
  t.equal(served.view.balloon.refilledBytes, BYTES);
  t.equal(served.saw('pages-used').length, 0, 'it may');
  await end(t, running);
});

whereTold('a guest that uses pages of its balloon loses none of them', async (t) => {
  const running = await ballooned();
  const { served, frontend, driver } = running;
  touch(running, PAGES);
  const [used = 0] = PAGES.slice(300);
  frontend.ram.fillPage(used, 3);
  const before = frontend.ram.allocatedBytes();
  await looked(running, () => served.saw('pages-used').length === 1, 'it is found out');
  await looks(running, 20);
  t.ok(frontend.ram.pageHolds(used, 3));
  t.equal(frontend.ram.allocatedBytes(), before, 'not even what is empty');
  t.equal(served.view.diagnosis?.code, 'pages-used');
  t.match(served.view.verdict, /uses pages that are in its balloon.*: restart the guest if kexec/);
  // What a driver gives up is discarded all the same.
  await driver.deflate(PAGES);
  await driver.inflate(PAGES);
  await served.discarded();
  t.ok(frontend.ram.pageIsZero(used));
  await driver.reset();
  await BalloonDriver.start(frontend);
  await looks(running, 2);
  t.equal(served.view.verdict, null, 'until the driver starts anew');
  await end(t, running);
});

whereTold('pages that the guest takes back meanwhile are its own', async (t) => {
  const running = await ballooned();
  const { served, frontend, driver } = running;
  const back = PAGES.slice(0, 300);
  const absent = frontend.ram.allocatedBytes();
  for (let round = 0; round < 5; round++) {
    touch(running, PAGES);
    await looks(running, 2);
    await driver.deflate(back);
    for (const pfn of back) frontend.ram.fillPage(pfn, 4);
    // Rings take up pages, too.
    const most = absent + (back.length + 50) * PAGE_BYTES;
    await looked(running, () => frontend.ram.allocatedBytes() <= most, 'the rest is discarded');
    await looks(running, 3);
    t.ok(back.every((pfn) => frontend.ram.pageHolds(pfn, 4)));
    await driver.inflate(back);
    await served.discarded();
  }
  t.equal(served.saw('pages-used').length, 0);
  await end(t, running);
});

whereTold('a block of which a page was pinned comes back when the pin is gone', async (t) => {
  const huge = await HugeRam.start(t, 4 * MIB);
  if (huge === null) return;
  const ram = new GuestRam([
    { gpa: 0, lenBytes: 4 * MIB },
    { gpa: 4 * MIB, lenBytes: 4 * MIB, file: { fd: huge.fd, sizeBytes: fileBytes(huge.fd) } },
  ]);
  const running = await ServedVm.running({ frontend: { ram } });
  const { served, driver } = running;
  const before = ram.allocatedBytes();
  await huge.pin(5);
  const first = (4 * MIB) / PAGE_BYTES;
  await driver.inflate(pfns(first + 6, 506));
  await served.discarded();
  t.ok(
    before - ram.allocatedBytes() < 506 * PAGE_BYTES,
    'the kernel said that it did, and kept the huge page',
  );
  await looked(running, () => served.view.balloon.pinnedBytes === 506 * PAGE_BYTES, 'that is found out');
  t.equal(served.view.balloon.refilledBytes, 0);
  t.equal(served.view.diagnosis?.code, 'pages-pinned');
  t.equal(served.device.guestUse().discardedBytes, 0);
  await looks(running, 8);
  t.equal(served.saw('pages-pinned').length, 1, 'said once');
  await huge.unpin();
  // The page of the buffer that named them is one that was not there before.
  await looked(running, () => before - ram.allocatedBytes() > 500 * PAGE_BYTES, 'all of it came back');
  await looked(running, () => served.saw('pages-absent').length === 1, 'that is told');
  t.equal(served.view.verdict, null);
  t.equal(served.view.balloon.pinnedBytes, 0);
  t.same(ram.read(8 * MIB - PAGE_BYTES, PAGE_BYTES), new Uint8Array(PAGE_BYTES).fill(1));
  await served.close();
});
