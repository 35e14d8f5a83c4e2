// Ten VMs that flood their rings beside one that does not: what each gets served, counted in chains.
import t from 'tap';
import { duplicateFd } from '../../src/os/fd.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { Turns, type Seat } from '../../src/vhost-user/turns.js';
import { Vring } from '../../src/vhost-user/vring.js';
import type { Device } from '../../src/virtqueue/device.js';
import { inEachOrder } from '../support/each-order.js';
import { GuestRam } from '../support/guest-ram.js';
import { RingDriver } from '../support/ring-driver.js';
import { ServedVm } from '../support/served-vm.js';

/** What a chain takes, in milliseconds of a clock that nothing else moves. */
const CHAIN_MS = 0.02;
const RING_SIZE = 128;

/** A VM whose rings are always full. */
class Flood {
  served = 0;
  readonly #ram = new GuestRam([{ gpa: 0, lenBytes: 2 ** 21 }]);
  readonly #memory = new GuestMemory();
  readonly #rings: { ring: RingDriver; vring: Vring }[] = [];

  constructor(turns: Turns, rings: number, spend: (ms: number) => void) {
    const { file, lenBytes, userAddress } = this.#ram.find(0, 4096);
    this.#memory.add(
      { gpa: 0n, sizeBytes: BigInt(lenBytes), userAddr: userAddress, mmapOffset: 0n },
      duplicateFd(file.fd),
    );
    const device: Device = {
      offeredFeatures: 0n,
      queueCount: rings,
      leastQueues: rings,
      readConfig: (_, length) => new Uint8Array(length),
      writeConfig: () => undefined,
      setFeatures: () => undefined,
      start: () => undefined,
      stop: () => undefined,
      serves: () => true,
      handle: () => {
        spend(CHAIN_MS);
        this.served++;
        return 0;
      },
      forget: () => undefined,
      flush: () => true,
      interrupt: () => true,
      release: () => true,
      goOn: () => undefined,
      saveState: () => new Uint8Array(0),
      loadState: () => undefined,
    };
    const context = {
      memory: this.#memory,
      device,
      features: 0n,
      dirtyLog: null,
      seat: turns.seat(),
      running: true,
      configured: [0],
      intact: () => true,
      ringFailed: (_: number, error: Error) => {
        throw error;
      },
      kickAcked: () => undefined,
    };
    for (let index = 0; index < rings; index++) {
      const ring = new RingDriver(this.#ram, { size: RING_SIZE, gpa: index * 2 ** 16 });
      const vring = new Vring(index, context);
      const { descriptorGpa, driverGpa, deviceGpa } = ring.areas;
      vring.setSize(ring.size);
      vring.setAddress({
        index,
        flags: 0,
        descriptor: this.#ram.userAddress(descriptorGpa, 1),
        available: this.#ram.userAddress(driverGpa, 1),
        used: this.#ram.userAddress(deviceGpa, 1),
        log: 0n,
      });
      vring.setKick(duplicateFd(ring.kickFd));
      vring.enabled = true;
      this.#rings.push({ ring, vring });
      for (let n = 0; n < RING_SIZE; n++) ring.add([{ gpa: 2 ** 20, len: 4 }], { publish: false });
      ring.publish();
    }
  }

  /** Whatever came back goes out again. */
  kick(): void {
    for (const { ring } of this.#rings) {
      for (let n = ring.collectUsed().length; n > 0; n--) {
        ring.add([{ gpa: 2 ** 20, len: 4 }], { publish: false });
      }
      ring.publish();
      ring.kick();
    }
  }

  close(): void {
    for (const { ring, vring } of this.#rings) {
      vring.close();
      ring.close();
    }
    this.#memory.close();
    this.#ram.close();
  }
}

/** Time that passes only as the test says, and while all rest. */
function restingUntil(rested: (ms: number) => void): (work: () => void, ms: number) => void {
  return (work, ms) => {
    setImmediate(() => {
      rested(ms);
      work();
    });
  };
}

void t.test('chains are shared by VMs, not by rings', async (t) => {
  let now = 0;
  const spend = (ms: number): number => (now += ms);
  const turns = new Turns(() => now, restingUntil(spend));
  const hostile = Array.from({ length: 10 }, () => new Flood(turns, 5, spend));
  const honest = new Flood(turns, 1, spend);
  const flood = async (untilMs: number): Promise<void> => {
    while (now < untilMs) {
      for (const vm of [...hostile, honest]) vm.kick();
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await flood(2000);
  const before = [honest, ...hostile].map(({ served }) => served);
  await flood(5000);
  const [ours = 0, ...theirs] = [honest, ...hostile].map(({ served }, n) => served - (before[n] ?? 0));
  const all = theirs.reduce((sum, served) => sum + served, ours);
  t.ok(ours / all > 0.9 / 11, `${ours} of ${all}`);
  t.ok(Math.min(...theirs) / all > 0.8 / 11, 'they have theirs');
  for (const vm of [...hostile, honest]) vm.close();
});

inEachOrder('a VM that has to wait loses nothing by it, and that is said', async (t) => {
  let now = 0;
  let waits = 0;
  const seats: Seat[] = [];
  const turns = new (class extends Turns {
    override seat(throttled?: () => void): Seat {
      const seat = super.seat(throttled);
      seats.push(seat);
      return seat;
    }

    override waits(seat: Seat): void {
      waits++;
      super.waits(seat);
    }
  })(
    () => now,
    // Others have their turns first.
    restingUntil((ms) => (now += 100 + ms)),
  );
  const { served, frontend, driver } = await ServedVm.running({ turns });
  turns.seat();
  /** Both were at it for as long. */
  const busy = (ms: number): void => {
    for (const seat of seats) seat.measure(() => (now += ms));
  };
  busy(300);
  for (let round = 0; round < 50; round++) {
    await Promise.all([frontend.getConfig(), frontend.getConfig(4, 4), driver.inflate([4096 + round])]);
    now += 10;
    busy(20);
  }
  t.ok(waits >= 50, `it waits in each round: ${waits} times`);
  t.equal(served.view.balloon.actualBytes, 50 * 4096);
  await served.discarded();
  t.equal(served.saw('vm-throttled').length, 1);
  t.match(served.view.verdict, /so busy that other VMs go first/);
  now += 20_000;
  t.equal(served.view.verdict, null, 'that is over');
  t.same(frontend.protocolViolations, []);
  await served.close();
});
