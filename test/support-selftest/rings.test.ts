import t from 'tap';
import { drainEvent, signalEvent } from '../../src/os/eventfd.js';
import { GuestRam } from '../support/guest-ram.js';
import type { GuestRing } from '../support/guest-ring.js';
import { PackedRingDriver } from '../support/packed-ring-driver.js';
import { RingDriver } from '../support/ring-driver.js';
import { NaivePackedRing, NaiveSplitRing, type NaiveRing } from './naive-rings.js';

const RING_GPA = 0x10000;
const SIZE = 8;

interface Bench {
  driver: GuestRing;
  device: NaiveRing;
  close: () => void;
}

function bench(packed: boolean, eventIdx: boolean): Bench {
  const ram = new GuestRam([{ gpa: 0, lenBytes: 1 << 20 }]);
  const options = { size: SIZE, gpa: RING_GPA, eventIdx };
  const driver = packed ? new PackedRingDriver(ram, options) : new RingDriver(ram, options);
  const Device = packed ? NaivePackedRing : NaiveSplitRing;
  const device = new Device(ram, driver.areas, SIZE, eventIdx);
  const close = (): void => {
    driver.close();
    ram.close();
  };
  return { driver, device, close };
}

for (const packed of [false, true]) {
  for (const eventIdx of [false, true]) {
    const name = `${packed ? 'packed' : 'split'} ring ${eventIdx ? 'with' : 'without'} EVENT_IDX`;

    void t.test(`${name}: chains go out and come back, many times round the ring`, (t) => {
      const { driver, device, close } = bench(packed, eventIdx);
      t.teardown(close);
      for (let round = 0; round < 40; round++) {
        const offered = [1, 2, 3].map((length) => {
          const buffers = Array.from({ length }, (_, i) => ({
            gpa: 0x40000 + 4096 * i + round,
            len: 100 + i,
            writable: i === 1,
          }));
          const indirect = round % 3 === 0;
          return {
            buffers,
            head: driver.add(buffers, { indirect, publish: length === 3 && round % 2 === 0 }),
          };
        });
        if (round % 2 === 1) {
          t.equal(device.pop(), null, 'an unpublished chain is not seen');
          driver.publish();
        }
        const popped = offered.map(() => device.pop());
        t.strictSame(
          popped.map((chain) => ({ buffers: chain?.buffers, head: chain?.id })),
          offered,
        );
        t.equal(device.pop(), null);
        // A split ring may return chains in any order; the naive packed device keeps to the ring's.
        const returned = packed ? popped : popped.toReversed();
        returned.forEach((chain, i) => {
          if (chain !== null) device.push(chain, i);
        });
        t.strictSame(
          driver.collectUsed(),
          returned.map((chain, i) => ({ head: chain?.id, len: i })),
        );
        t.equal(driver.outstanding, 0);
      }
      t.throws(() => {
        for (let i = 0; i <= SIZE; i++) driver.add([{ gpa: 0, len: 1 }]);
      }, /only 0 free descriptors/);
      t.end();
    });

    void t.test(`${name}: kicks and calls are suppressed as the other side asks`, async (t) => {
      const { driver, device, close } = bench(packed, eventIdx);
      t.teardown(close);
      const roundTrip = (
        kicksWanted: boolean,
        callsWanted: boolean,
      ): { kicked: boolean; called: boolean } => {
        device.setKicks(kicksWanted);
        if (callsWanted) driver.enableCalls();
        else driver.disableCalls();
        driver.add([{ gpa: 0, len: 1 }]);
        const kicked = driver.kick();
        t.equal(drainEvent(driver.kickFd), kicked ? 1 : 0);
        const chain = device.pop();
        const called = chain !== null && device.push(chain, 0);
        driver.collectUsed();
        return { kicked, called };
      };
      for (let round = 0; round < 3 * SIZE; round++) {
        t.strictSame(roundTrip(true, true), { kicked: true, called: true });
        t.equal(roundTrip(false, true).kicked, false);
        // With EVENT_IDX a split ring's driver has nothing but an old event to say that it wants no call.
        t.equal(roundTrip(true, false).called, false);
      }

      device.setKicks(false);
      driver.add([{ gpa: 0, len: 1 }]);
      t.ok(driver.kick({ force: true }));
      const chain = device.pop();
      const waiting = driver.waitUsed(1);
      if (chain !== null && device.push(chain, 7)) signalEvent(driver.callFd);
      t.strictSame(await waiting, [{ head: chain?.id, len: 7 }]);
      t.equal(driver.calls, 1);

      driver.add([{ gpa: 0, len: 1 }]);
      const silent = device.pop();
      const failing = driver.waitUsed(1, 20);
      if (silent !== null) device.push(silent, 0);
      await t.rejects(failing, /0 of 1 chains came back, 0 are outstanding; 1 more came back without a call/);
    });
  }
}

void t.test('a split ring starts anywhere, and finds a device that makes up heads', (t) => {
  const ram = new GuestRam([{ gpa: 0, lenBytes: 1 << 20 }]);
  const driver = new RingDriver(ram, { size: SIZE, gpa: RING_GPA });
  t.teardown(() => {
    driver.close();
    ram.close();
  });
  driver.startAt(0xfffe);
  const device = new NaiveSplitRing(ram, driver.areas, SIZE, false);
  for (let i = 0; i < 4; i++) {
    driver.add([{ gpa: 0, len: i }]);
    const chain = device.pop();
    if (chain !== null) device.push(chain, i);
  }
  t.strictSame(
    driver.collectUsed().map(({ len }) => len),
    [0, 1, 2, 3],
  );
  driver.writeDescriptor(7, { gpa: 0x123, len: 0, flags: 2, next: 0 });
  driver.offerHead(7);
  driver.offerHead(7);
  for (const chain of [device.pop(), device.pop()]) {
    t.strictSame(chain, { id: 7, slots: 0, buffers: [{ gpa: 0x123, len: 0, writable: true }] });
    if (chain !== null) device.push(chain, 0);
  }
  t.equal(driver.collectUsed().length, 2);
  device.push({ id: 5, slots: 1, buffers: [] }, 0);
  t.throws(() => driver.collectUsed(), /returned head 5/);
  t.end();
});

void t.test('a packed ring takes descriptors made by hand', (t) => {
  const ram = new GuestRam([{ gpa: 0, lenBytes: 1 << 20 }]);
  const driver = new PackedRingDriver(ram, { size: SIZE, gpa: RING_GPA });
  t.teardown(() => {
    driver.close();
    ram.close();
  });
  const device = new NaivePackedRing(ram, driver.areas, SIZE, false);
  for (let round = 0; round < SIZE; round++) {
    driver.offerDescriptors(0xfff0, [
      { gpa: 1, len: 2, id: 3, flags: 1 },
      { gpa: 4, len: 5, id: 0xfff0, flags: 2 },
    ]);
    const chain = device.pop();
    t.strictSame(chain, {
      id: 0xfff0,
      slots: 2,
      buffers: [
        { gpa: 1, len: 2, writable: false },
        { gpa: 4, len: 5, writable: true },
      ],
    });
    if (chain !== null) device.push(chain, 0);
    t.strictSame(driver.collectUsed(), [{ head: 0xfff0, len: 0 }]);
  }
  t.end();
});
