// Memory that cannot be discarded is served, memory that cannot be served is the verdict, and a device that is plugged in again
// begins anew.
import { mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createMemfd } from '../../src/os/memfd.js';
import { closeFd } from '../../src/os/fd.js';
import { BalloonDriver } from '../support/balloon-driver.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { bits, encodeSingleRegion, PROTOCOL_F, REQUEST } from '../support/wire.js';

const MIB = 2 ** 20;
/** Longer than the daemon waits for a VMM that ends, once its channel is closed. */
const UNPLUGGED_MS = 1500;
const RAM_BYTES = 64 * MIB;
const DISK_BYTES = 4 * MIB;
const DISK_PFN = RAM_BYTES / PAGE_BYTES;

const whereAdded = eachOrder({ protocolFeatures: bits(PROTOCOL_F.CONFIGURE_MEM_SLOTS) });

/** A file beside the tests, on whichever disk they are on. */
function diskFile(t: { teardown: (work: () => void) => void }): { fd: number; sizeBytes: number } {
  const folder = mkdtempSync(join(import.meta.dirname, 'disk-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'memory');
  writeFileSync(path, Buffer.alloc(DISK_BYTES, 0xa5));
  return { fd: openSync(path, 'r+'), sizeBytes: DISK_BYTES };
}

inEachOrder('a region on disk is served, and nothing of it discarded', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  const file = diskFile(t);
  await frontend.addRegion({ gpa: RAM_BYTES, lenBytes: DISK_BYTES, file });
  await frontend.getConfig();
  t.match(served.view.memory, { sharedBytes: RAM_BYTES + DISK_BYTES, discardableBytes: RAM_BYTES });
  const { queueNumbers } = driver;
  const says = /only 64 MiB of the 68 MiB of the guest/;
  // Without statistics nobody knows what its driver counts as memory.
  t.match(served.view.verdict, queueNumbers.has('stats') ? says : null);
  await driver.inflate([...pfns(driver.firstFreePfn, 16), ...pfns(DISK_PFN, 32)]);
  await served.discarded();
  t.equal(served.view.balloon.actualBytes, 48 * PAGE_BYTES);
  t.equal(served.view.balloon.discardedBytesTotal, 16 * PAGE_BYTES);
  t.equal(served.saw('pfn-outside-memory').length, 1);
  if (queueNumbers.has('reporting')) await driver.report([{ gpa: RAM_BYTES, len: DISK_BYTES }]);
  const read = Buffer.alloc(DISK_BYTES);
  readSync(file.fd, read, 0, DISK_BYTES, 0);
  t.ok(read.equals(Buffer.alloc(DISK_BYTES, 0xa5)), 'the disk has all of its bytes');
  await driver.deflate([...driver.balloonPfns]);
  t.same(frontend.protocolViolations, []);
  await served.close();
});

inEachOrder('all of the memory on disk: rings are served all the same', async (t) => {
  const { served, frontend, driver } = await ServedVm.running();
  await driver.reset();
  await frontend.forgetMemory();
  const [old] = frontend.ram.regions;
  if (old === undefined) throw new Error('there is no memory');
  await frontend.removeRegion(old);
  const folder = mkdtempSync(join(import.meta.dirname, 'disk-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'ram'), Buffer.alloc(RAM_BYTES));
  const file = { fd: openSync(join(folder, 'ram'), 'r+'), sizeBytes: RAM_BYTES };
  await frontend.addRegion({ gpa: 0, lenBytes: RAM_BYTES, file });
  const again = await BalloonDriver.start(frontend);
  await again.inflate(pfns(again.firstFreePfn, 300));
  t.equal(served.view.state, 'running');
  t.match(served.view.balloon, { actualBytes: 300 * PAGE_BYTES, discardedBytesTotal: 0 });
  t.match(served.view.memory, { discardableBytes: 0, allocatedBytes: 0 });
  await served.close();
});

whereAdded('memory that is refused is the verdict, until it is taken', async (t) => {
  const { served, frontend } = await ServedVm.running();
  const fd = createMemfd('dimm', MIB);
  const region = {
    gpa: BigInt(RAM_BYTES),
    lenBytes: BigInt(MIB),
    userAddress: 0x7e0000000000n,
    mmapOffset: 0n,
  };
  const add = (change: Partial<typeof region>): Promise<unknown> =>
    frontend.request(REQUEST.ADD_MEM_REG, encodeSingleRegion({ ...region, ...change }), {
      needReply: true,
      fds: [fd],
    });
  await t.rejects(add({ lenBytes: BigInt(2 * MIB) }));
  t.match(served.view.diagnosis, {
    code: 'memory-refused',
    text: /ends at 2097152 in a file of 1048576 bytes/,
  });
  await add({ gpa: region.gpa + BigInt(16 * MIB) });
  t.match(served.view.diagnosis, { code: 'memory-refused' }, 'another region is another matter');
  await add({ userAddress: 0x7d0000000000n });
  t.equal(served.view.diagnosis, null);
  closeFd(fd);
  await served.close();
});

whereAdded('the 510th region is the verdict, which says what helps', async (t) => {
  const { served, frontend } = await ServedVm.running();
  const fd = createMemfd('many', 510 * PAGE_BYTES);
  const add = (n: number): Promise<unknown> =>
    frontend.request(
      REQUEST.ADD_MEM_REG,
      encodeSingleRegion({
        gpa: BigInt(RAM_BYTES + n * PAGE_BYTES),
        lenBytes: BigInt(PAGE_BYTES),
        userAddress: BigInt(0x7e0000000000 + n * PAGE_BYTES),
        mmapOffset: BigInt(n * PAGE_BYTES),
      }),
      { needReply: true, fds: [fd] },
    );
  for (let n = 1; n < 509; n++) await add(n);
  t.not(served.view.diagnosis?.code, 'memory-refused');
  await t.rejects(add(509));
  t.match(
    served.view.verdict,
    /refused memory of the VM, since more than 509 memory regions: give the VM fewer/,
  );
  closeFd(fd);
  await served.close();
});

inEachOrder(
  'a device that is plugged in again begins anew: nothing is left of the memory and pages of the first',
  async (t) => {
    const { served, frontend, driver } = await ServedVm.running();
    await driver.inflate(pfns(driver.firstFreePfn, 64));
    await served.discarded();
    served.device.setTarget(100 * PAGE_BYTES, 'operator');
    await driver.reset();
    t.match(served.view, {
      state: 'stopped',
      balloon: { actualBytes: 64 * PAGE_BYTES },
      diagnosis: { code: 'stopped' },
    });
    await frontend.replug();
    t.match(served.view, { state: 'connected', balloon: { actualBytes: 0, targetBytes: 100 * PAGE_BYTES } });
    t.equal(served.view.memory.sharedBytes, 0);
    const again = await BalloonDriver.start(frontend);
    await served.until(({ state }) => state === 'running', 'the second driver runs');
    t.equal(served.view.memory.sharedBytes, RAM_BYTES);
    t.equal(await again.readTargetPages(), 100, 'the order holds');
    await again.inflate(pfns(again.firstFreePfn, 32));
    await served.discarded();
    t.equal(served.view.balloon.actualBytes, 32 * PAGE_BYTES);
    t.same(frontend.protocolViolations, []);
    t.same(served.saw('frontend-error'), []);
    // The same again while it runs is a message without a meaning.
    await frontend.tell(REQUEST.SET_OWNER);
    await again.inflate(pfns(again.firstFreePfn + 32, 32));
    t.equal(served.view.balloon.actualBytes, 64 * PAGE_BYTES);
    await served.close();
  },
);

inEachOrder(
  'a device that is unplugged is told of once, and a driver that stops or a VMM that ends is not',
  async (t) => {
    const { served, frontend, driver } = await ServedVm.running();
    await driver.reset();
    frontend.unplug();
    await served.until(() => served.saw('device-unplugged').length > 0, 'an event');
    t.equal(served.view.state, 'stopped');
    await frontend.replug();
    const again = await BalloonDriver.start(frontend);
    await served.until(({ state }) => state === 'running', 'the second driver runs');
    await again.reset();
    await sleep(UNPLUGGED_MS);
    await served.close();
    await sleep(UNPLUGGED_MS);
    t.equal(served.saw('device-unplugged').length, 1);
    t.equal(served.saw('vm-disconnected').length, 1);
  },
);

inEachOrder(
  'a target is told once, and the same target again only to a guest that stopped short of it',
  async (t) => {
    const { served, frontend, driver } = await ServedVm.running();
    served.vm.setTarget({ balloonBytes: 64 * PAGE_BYTES });
    await frontend.waitConfigChanges(1);
    await served.settle();
    t.equal(frontend.configChanges.length, 1, 'one message for one order');
    served.vm.setTarget({ balloonBytes: 64 * PAGE_BYTES });
    await frontend.waitConfigChanges(2);
    await driver.inflate(pfns(driver.firstFreePfn, 64));
    served.vm.setTarget({ balloonBytes: 64 * PAGE_BYTES });
    await served.settle();
    t.equal(frontend.configChanges.length, 2, 'it is there');
    await served.close();
  },
);
