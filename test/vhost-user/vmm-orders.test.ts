// An ordinary life of a VM with each VMM's messages, in that VMM's order: all of it works, and nothing is warned of.
import { readSync } from 'node:fs';
import t from 'tap';
import { setTimeout as sleep } from 'node:timers/promises';
import { EVENTS } from '../../protocol/control/events.js';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { OrderBook } from '../../src/vm/order-book.js';
import { BALLOON_F, BalloonDriver } from '../support/balloon-driver.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { CLOUD_HYPERVISOR, VMM_ORDERS, type VmmOrder } from '../support/vmm-orders.js';
import {
  encodeVringAddress,
  hasBit,
  REQUEST,
  u64s,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from '../support/wire.js';

const MIB = 2 ** 20;
/** Longer than the daemon waits for further queues to be named. */
const QUEUES_SETTLE_MS = 1200;
const VHOST_F_LOG_ALL = 1n << 26n;

/** One VM over all of its connections. */
class Life {
  served: ServedVm;
  driver!: BalloonDriver;
  readonly book = new OrderBook();
  readonly #before: ServedVm[] = [];

  constructor(readonly order: VmmOrder) {
    this.served = new ServedVm({ frontend: { order }, book: this.book });
  }

  async boot(): Promise<void> {
    await this.served.frontend.connect();
    this.driver = await BalloonDriver.start(this.served.frontend);
    await this.runs();
  }

  async reboot(): Promise<void> {
    await this.driver.reset();
    if (this.order.reset === null) {
      this.#next();
      this.served.frontend.connectAgain(this.served.socket);
      await this.boot();
    } else {
      this.driver = await BalloonDriver.start(this.served.frontend);
      await this.runs();
    }
  }

  /** The back-end went away, and its VMM comes back with the driver that ran. */
  async reconnect(): Promise<void> {
    await this.driver.stopFollowing();
    this.#next();
    await this.served.frontend.reconnect(this.served.socket);
    await this.runs();
  }

  async runs(): Promise<void> {
    await this.served.until(({ state }) => state === 'running', 'the driver runs');
  }

  /** The guest follows its target to this size. */
  async follows(bytes: number): Promise<void> {
    this.driver.followTarget();
    await this.served.until(
      ({ balloon }) => balloon.actualBytes === bytes && !balloon.actualUnknown && balloon.pendingBytes === 0,
      `the balloon holds ${bytes} bytes`,
    );
    await this.driver.idle();
  }

  get warnings(): string[] {
    const all = [...this.#before, this.served].flatMap(({ events }) => events);
    return all
      .filter(({ event }) => ['warn', 'error'].includes(EVENTS[event].level))
      .map(({ message }) => message);
  }

  #next(): void {
    this.#before.push(this.served);
    this.served = new ServedVm({ over: this.served.frontend, book: this.book });
  }
}

for (const order of VMM_ORDERS) {
  void t.test(`${order.name}: boot, set, pause, reboot, reconnect, end`, async (t) => {
    const life = new Life(order);
    await life.boot();
    const { frontend } = life.served;
    await sleep(QUEUES_SETTLE_MS);
    t.equal(life.served.view.verdict, null);
    t.equal(hasBit(life.driver.ackedFeatures, BALLOON_F.MUST_TELL_HOST), order !== CLOUD_HYPERVISOR);

    const before = frontend.ram.allocatedBytes();
    for (const pfn of pfns(4096, 4096)) frontend.ram.fillPage(pfn, 1);
    t.equal(frontend.ram.allocatedBytes() - before, 16 * MIB);
    life.served.vm.setTarget({ balloonBytes: 48 * MIB, force: true });
    await life.follows(48 * MIB);
    t.ok(frontend.ram.allocatedBytes() < before + 4 * MIB, 'given up pages are discarded');
    life.served.vm.setTarget({ balloonBytes: 8 * MIB });
    await life.follows(8 * MIB);
    const told = life.driver.ackedFeatures;
    if (hasBit(told, BALLOON_F.STATS_VQ)) t.ok(await life.served.device.refreshStats(5000), 'statistics');
    if (hasBit(told, BALLOON_F.REPORTING)) {
      frontend.ram.fillPage(4096, 1);
      await life.driver.report([{ gpa: 4096 * PAGE_BYTES, len: PAGE_BYTES }]);
      t.ok(frontend.ram.pageIsZero(4096), 'a report');
    }

    await frontend.pause();
    await life.served.until(({ state }) => state === 'stopped', 'it is paused');
    t.equal(life.served.view.balloon.actualBytes, 8 * MIB);
    life.served.vm.setTarget({ balloonBytes: 4 * MIB });
    await frontend.resume();
    await life.runs();
    await life.follows(4 * MIB);

    await life.reboot();
    t.match(life.served.view.balloon, { targetBytes: 4 * MIB, actualBytes: 0, actualUnknown: false });
    await life.follows(4 * MIB);

    if (order.reconnect !== null) {
      await life.reconnect();
      t.match(life.served.view.balloon, { targetBytes: 4 * MIB, actualUnknown: true });
      await life.follows(4 * MIB);
      t.equal(life.driver.balloonPfns.size, (4 * MIB) / PAGE_BYTES);
    }
    await sleep(QUEUES_SETTLE_MS);
    t.equal(life.served.view.verdict, null);
    await life.served.close();
    t.same(life.warnings, []);
    t.same(frontend.protocolViolations, []);
  });
}

void t.test('rust-vmm logs dirty pages: it begins, sees the used ring, takes a new log, ends', async (t) => {
  const { served, frontend, driver } = await ServedVm.running({ frontend: { order: CLOUD_HYPERVISOR } });
  const features = driver.ackedFeatures | (1n << BigInt(VHOST_USER_F_PROTOCOL_FEATURES));
  const size = 4096;
  const log = async (): Promise<number> => {
    const fd = createMemfd('log', size);
    const where = u64s(BigInt(size), 0n);
    t.same(await frontend.ask(REQUEST.SET_LOG_BASE, where, [fd]), where, 'it waits for these 16 bytes');
    return fd;
  };
  const logRings = async (flags: number): Promise<void> => {
    for (const { index, ring } of frontend.queues) {
      const { descriptorGpa, driverGpa, deviceGpa } = ring.areas;
      const payload = encodeVringAddress(index, {
        descriptors: frontend.ram.userAddress(descriptorGpa, 16),
        used: frontend.ram.userAddress(deviceGpa, 4),
        available: frontend.ram.userAddress(driverGpa, 4),
        flags,
        log: BigInt(deviceGpa),
      });
      await frontend.tell(REQUEST.SET_VRING_ADDR, payload);
    }
  };
  const isDirty = (fd: number, gpa: number): boolean => {
    const page = Math.floor(gpa / PAGE_BYTES);
    const byte = new Uint8Array(1);
    readSync(fd, byte, 0, 1, Math.floor(page / 8));
    return ((byte[0] ?? 0) & (1 << (page % 8))) !== 0;
  };
  const { deviceGpa } = driver.ring('inflate').areas;
  const first = await log();
  await frontend.tell(REQUEST.SET_FEATURES, u64s(features | VHOST_F_LOG_ALL));
  await logRings(1);
  t.notOk(isDirty(first, deviceGpa));
  await driver.inflate(pfns(4096, 10));
  t.ok(isDirty(first, deviceGpa));
  const second = await log();
  t.notOk(isDirty(second, deviceGpa));
  await driver.inflate(pfns(5000, 10));
  t.ok(isDirty(second, deviceGpa));
  await logRings(0);
  await frontend.tell(REQUEST.SET_FEATURES, u64s(features));
  t.same(served.saw('frontend-error'), []);
  t.equal(served.view.balloon.actualBytes, 20 * PAGE_BYTES);
  [first, second].forEach(closeFd);
  await served.close();
});
