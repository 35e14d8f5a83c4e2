// How much of a ring is served before other VMs get their turn, whatever its driver does meanwhile.
import t, { type Test } from 'tap';
import { duplicateFd } from '../../src/os/fd.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { Turns } from '../../src/vhost-user/turns.js';
import { Vring } from '../../src/vhost-user/vring.js';
import type { Chain } from '../../src/virtqueue/chain.js';
import type { Device } from '../../src/virtqueue/device.js';
import { resources } from '../support/bystander.js';
import { GuestRam } from '../support/guest-ram.js';
import { RingDriver } from '../support/ring-driver.js';

const RING_BYTES = 2 ** 16;
const GPA = 2 ** 20;

interface Rig {
  vring: Vring;
  ring: RingDriver;
  handled: Chain[];
  failures: Error[];
}

/** A ring over real memory whose device takes all; `duringFlush` is what the driver does just then. */
async function withRing(
  t: Test,
  duringFlush: (ring: RingDriver, flushes: number, done: () => void) => boolean,
  test: (rig: Rig) => Promise<void> | void,
): Promise<void> {
  const before = resources();
  const ram = new GuestRam([{ gpa: 0, lenBytes: GPA + 2 ** 20 }]);
  const ring = new RingDriver(ram, { size: 256, gpa: 0 });
  const memory = new GuestMemory();
  const { file, lenBytes, userAddress } = ram.find(0, RING_BYTES);
  memory.add(
    { gpa: 0n, sizeBytes: BigInt(lenBytes), userAddr: userAddress, mmapOffset: 0n },
    duplicateFd(file.fd),
  );
  const handled: Chain[] = [];
  const failures: Error[] = [];
  let flushes = 0;
  const device: Device = {
    offeredFeatures: 0n,
    queueCount: 1,
    leastQueues: 1,
    readConfig: (_, lenBytes) => new Uint8Array(lenBytes),
    writeConfig: () => undefined,
    setFeatures: () => undefined,
    start: () => undefined,
    stop: () => undefined,
    serves: () => true,
    handle: (_, chain) => {
      handled.push(chain);
      return 0;
    },
    forget: () => undefined,
    flush: (_, done) => duringFlush(ring, ++flushes, done),
    interrupt: () => true,
    release: () => true,
    goOn: () => undefined,
    saveState: () => new Uint8Array(0),
    loadState: () => undefined,
  };
  const vring = new Vring(0, {
    memory,
    device,
    features: 0n,
    dirtyLog: null,
    running: true,
    configured: [0],
    seat: new Turns().seat(),
    intact: () => true,
    ringFailed: (_, error) => failures.push(error),
    kickAcked: () => undefined,
  });
  const { descriptorGpa, driverGpa, deviceGpa } = ring.areas;
  vring.setSize(ring.size);
  vring.setAddress({
    index: 0,
    flags: 0,
    descriptor: ram.userAddress(descriptorGpa, 1),
    available: ram.userAddress(driverGpa, 1),
    used: ram.userAddress(deviceGpa, 1),
    log: 0n,
  });
  vring.setKick(duplicateFd(ring.kickFd));
  vring.enabled = true;
  try {
    await test({ vring, ring, handled, failures });
  } finally {
    vring.close();
    memory.close();
    ring.close();
    ram.close();
  }
  t.same(resources(), before);
}

const nothing = (): boolean => true;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

void t.test('64 chains at a time', (t) =>
  withRing(t, nothing, async ({ vring, ring, handled, failures }) => {
    for (let n = 0; n < 150; n++) ring.add([{ gpa: GPA, len: 256 }], { publish: false });
    ring.publish();
    vring.drain();
    t.equal(handled.length, 64);
    t.equal(ring.collectUsed().length, 64, 'given back before the turn ends');
    await turn();
    t.equal(handled.length, 128);
    await turn();
    t.equal(handled.length, 150);
    t.equal(ring.collectUsed().length, 86);
    t.same(failures, []);
  }),
);

void t.test('of long buffers fewer', (t) =>
  withRing(t, nothing, async ({ vring, ring, handled }) => {
    for (let n = 0; n < 6; n++) ring.add([{ gpa: GPA, len: 2 ** 14 }], { publish: false });
    ring.publish();
    vring.drain();
    t.equal(handled.length, 2);
    await turn();
    await turn();
    t.equal(handled.length, 6);
    t.equal(ring.collectUsed().length, 6);
  }),
);

void t.test('a driver that always adds another one in between does not hold up others', (t) =>
  withRing(
    t,
    (ring, flushes) => {
      if (flushes > 10_000) throw new Error('it does');
      ring.collectUsed();
      ring.add([{ gpa: GPA, len: 4 }]);
      return true;
    },
    async ({ vring, ring, handled, failures }) => {
      ring.add([{ gpa: GPA, len: 4 }]);
      vring.drain();
      t.equal(handled.length, 64);
      await turn();
      t.equal(handled.length, 128, 'and is served on in the next turn');
      t.same(failures, []);
    },
  ),
);

void t.test('a ring that is let go of meanwhile is not served on', (t) =>
  withRing(t, nothing, async ({ vring, ring, handled }) => {
    for (let n = 0; n < 100; n++) ring.add([{ gpa: GPA, len: 4 }], { publish: false });
    ring.publish();
    vring.drain();
    vring.stop();
    await turn();
    await turn();
    t.equal(handled.length, 64);
    t.equal(vring.base, 64);
  }),
);

void t.test(
  'chains that the device is not done with are given back when it is, and none taken before',
  (t) => {
    const waiting: (() => void)[] = [];
    const later = (_: RingDriver, flushes: number, done: () => void): boolean => {
      waiting.push(done);
      return flushes > 2;
    };
    return withRing(t, later, ({ vring, ring, handled, failures }) => {
      for (let n = 0; n < 2; n++) ring.add([{ gpa: GPA, len: 4 }]);
      vring.drain();
      ring.add([{ gpa: GPA, len: 4 }]);
      vring.drain();
      t.equal(handled.length, 2);
      t.equal(ring.collectUsed().length, 0);
      waiting[0]?.();
      t.equal(ring.collectUsed().length, 2);
      t.equal(handled.length, 3);
      // The ring is let go of meanwhile, and seen anew: the old answer is nobody's any more.
      vring.detach();
      vring.drain();
      t.equal(handled.length, 4, 'the chain that was not given back is seen again');
      t.equal(ring.collectUsed().length, 1);
      waiting[1]?.();
      waiting[0]?.();
      t.equal(ring.collectUsed().length, 0);
      t.same(failures, []);
    });
  },
);

void t.test('a malformed chain after others waits with them', (t) => {
  let release = nothing as () => void;
  const later = (_: RingDriver, __: number, done: () => void): boolean => {
    release = done;
    return false;
  };
  return withRing(t, later, ({ vring, ring, failures }) => {
    ring.add([{ gpa: GPA, len: 4 }]);
    ring.offerHead(ring.size);
    vring.drain();
    t.equal(ring.collectUsed().length, 0);
    t.same(failures, []);
    release();
    t.equal(ring.collectUsed().length, 1);
    t.match(failures, [{ name: 'DriverError' }]);
  });
});
