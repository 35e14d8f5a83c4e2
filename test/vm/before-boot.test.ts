// What is ordered of a VM whose guest has not started yet, and of whose memory nobody knows; and of one without a name.
import type { Test } from 'tap';
import { BalloonDriver, CONFIG_NUM_PAGES } from '../support/balloon-driver.js';
import { eventually } from '../support/deadline.js';
import { inEachOrder } from '../support/each-order.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { NAME, wire } from '../support/vm-on-the-wire.js';
import { socketPair } from '../../src/os/socket.js';
import { readU32 } from '../support/wire.js';

const MIB = 2 ** 20;
const TIB = 2 ** 40;
const RAM_BYTES = 64 * MIB;
/** A guest of this size is left with a quarter. */
const MOST_BYTES = 48 * MIB;

/** A VM of RAM_BYTES whose VMM has connected, and whose driver has not started. */
async function connected(t: Test) {
  const wired = wire(t);
  const [ours, theirs] = socketPair();
  wired.fleet.adopt(ours, { path: '/balloon', name: NAME });
  const ram = new GuestRam([{ gpa: 0, lenBytes: RAM_BYTES }]);
  const frontend = new Frontend({ socket: theirs, ram });
  t.teardown(() => frontend.close());
  await frontend.connect();
  return { ...wired, frontend };
}

for (const [size, bytes, then] of [
  ['some of it', 16 * MIB, 16 * MIB],
  ['more than there will be', 10 * 1024 * MIB, MOST_BYTES],
  ['2^32 pages', 16 * TIB, MOST_BYTES],
  ['more pages than the config space can say', 17 * TIB, MOST_BYTES],
] as const) {
  inEachOrder(`a balloon of ${size} is kept until the guest's memory is known`, async (t) => {
    const { fleet, events, frontend } = await connected(t);
    const view = await fleet.control.setTarget(NAME, { balloonBytes: bytes });
    t.match(view, { ramBytes: 0, balloon: { targetBytes: 0 }, orders: [{ order: 'target' }] });
    t.equal(readU32(await frontend.getConfig(), CONFIG_NUM_PAGES), 0, 'nothing is asked of it yet');
    const driver = await BalloonDriver.start(frontend);
    await driver.stopFollowing();
    await eventually(
      () => fleet.control.find(NAME)?.balloon.targetBytes === then,
      () => JSON.stringify(fleet.control.find(NAME)),
    );
    t.equal(readU32(await frontend.getConfig(), CONFIG_NUM_PAGES), then / 4096);
    const clamped = events.filter(({ event }) => event === 'target-clamped');
    t.equal(clamped.length, bytes > then ? 1 : 0, 'it is said when it is less');
  });
}

inEachOrder('a guest is left with what it lives in, unless it is told to do with less', async (t) => {
  const { fleet, frontend } = await connected(t);
  await BalloonDriver.start(frontend);
  for (const order of [{ balloonBytes: 49 * MIB }, { memoryBytes: 15 * MIB }, { memoryBytes: 0 }]) {
    await t.rejects(
      async () => fleet.control.setTarget(NAME, order),
      /would keep .* of its 64 MiB, .*: set a target that leaves it 16 MiB at least, or give --force /,
    );
  }
  await t.rejects(async () => fleet.control.setTarget(NAME, { balloonBytes: 65 * MIB }), /is too much/);
  t.match(await fleet.control.setTarget(NAME, { balloonBytes: MOST_BYTES }), {
    balloon: { targetBytes: MOST_BYTES },
  });
  const forced = await fleet.control.setTarget(NAME, { memoryBytes: MIB, force: true });
  t.equal(forced.balloon.targetBytes, RAM_BYTES - MIB);
});

inEachOrder(
  'what was ordered of a VM without a name ends with it: its number may become that of another',
  async (t) => {
    const { fleet } = wire(t);
    const name = `pid-${process.pid}`;
    const connect = async (): Promise<Frontend> => {
      const [ours, theirs] = socketPair();
      fleet.adopt(ours, { path: '/balloon' });
      const frontend = new Frontend({ socket: theirs });
      t.teardown(() => frontend.close());
      await frontend.connect();
      return frontend;
    };
    const first = await connect();
    t.match(await fleet.control.setInhibited(name, 'backup'), { orders: [{ order: 'inhibit' }] });
    first.close();
    await eventually(
      () => fleet.size === 0,
      () => 'the VM is gone',
    );
    await connect();
    t.match(fleet.control.find(name), { inhibited: null, orders: [] });
  },
);
