import { readdirSync } from 'node:fs';
import t, { type Test } from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { socketPair } from '../../src/os/socket.js';
import {
  BALLOON_F,
  BalloonDriver,
  CONFIG_ACTUAL,
  LINUX_FEATURES,
  numberQueues,
} from '../support/balloon-driver.js';
import { Frontend, Nack, QEMU_PROTOCOL_FEATURES, type FrontendOptions } from '../support/frontend.js';
import { GIB, GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import { F_RING_PACKED } from '../support/guest-ring.js';
import { PROTOCOL_F, REQUEST, bits, encodeVringState, readU32, u64s } from '../support/wire.js';
import { CROSVM, QEMU, underOrder } from '../support/vmm-orders.js';
import { NaiveBackend, type NaiveOptions } from './naive-backend.js';

const MIB = 1024 * 1024;
const FEATURES = LINUX_FEATURES | bits(F_RING_PACKED, BALLOON_F.PAGE_POISON);

async function pair(
  t: Test,
  options: Partial<FrontendOptions> = {},
  backendOptions: Partial<NaiveOptions> = {},
): Promise<{ frontend: Frontend; backend: NaiveBackend }> {
  const [ours, theirs] = socketPair();
  const frontend = new Frontend({ socket: ours, order: QEMU, ...options });
  const backend = new NaiveBackend(theirs, frontend.ram, { features: FEATURES, ...backendOptions });
  t.teardown(() => {
    frontend.close();
    backend.close();
  });
  await frontend.connect();
  return { frontend, backend };
}

void t.test('the order of messages is that of QEMU', async (t) => {
  const ram = new GuestRam([
    { gpa: 0, lenBytes: 16 * MIB },
    { gpa: 4 * GIB, lenBytes: 8 * MIB, userAddress: 0x1234_5678_9000n },
  ]);
  const { frontend, backend } = await pair(t, { ram });
  const takeLog = async (): Promise<string[]> => {
    // All before has arrived when this is answered.
    await frontend.ask(REQUEST.GET_STATUS);
    return backend.log.splice(0).slice(0, -1);
  };
  t.strictSame(await takeLog(), [
    ...[
      'GET_FEATURES',
      'GET_PROTOCOL_FEATURES',
      'SET_PROTOCOL_FEATURES',
      'GET_QUEUE_NUM',
      'GET_MAX_MEM_SLOTS',
    ],
    ...['SET_BACKEND_REQ_FD +1', 'SET_OWNER', 'GET_FEATURES'],
    ...[0, 1, 2, 3, 4].flatMap((i) => [`SET_VRING_CALL(${i}) +1`, `SET_VRING_ERR(${i}) +1`]),
  ]);
  t.equal(frontend.maxQueues, 5n);
  const driver = await BalloonDriver.start(frontend, { features: bits(BALLOON_F.MUST_TELL_HOST) });
  t.strictSame(await takeLog(), [
    ...['GET_CONFIG', 'SET_FEATURES', 'ADD_MEM_REG +1', 'ADD_MEM_REG +1'],
    ...[0, 1].flatMap((i) => [
      ...[`SET_VRING_NUM(${i}, 64)`, `SET_VRING_BASE(${i}, 0)`, `SET_VRING_ADDR(${i})`],
      ...[`SET_VRING_KICK(${i}) +1`, `SET_VRING_CALL(${i}) +1`],
    ]),
    ...[0, 1, 2, 3, 4].map((i) => `SET_VRING_ENABLE(${i}, 1)`),
    ...[0, 1, 2, 3, 4].map((i) => `SET_VRING_CALL(${i}) +1`),
    'GET_CONFIG',
  ]);
  await driver.reset();
  t.strictSame(await takeLog(), [
    ...[0, 1, 2, 3, 4].map((i) => `SET_VRING_ENABLE(${i}, 0)`),
    ...['GET_VRING_BASE(0, 0)', 'GET_VRING_BASE(1, 0)'],
  ]);
  const again = await BalloonDriver.start(frontend);
  t.notOk(backend.log.includes('ADD_MEM_REG +1'), 'the memory table is not sent again');
  const region = await frontend.addRegion({ gpa: 8 * GIB, lenBytes: 8 * MIB });
  await again.inflate([(8 * GIB) / PAGE_BYTES]);
  await frontend.removeRegion(region);
  t.strictSame(
    backend.log.filter((entry) => entry.includes('MEM_REG')),
    ['ADD_MEM_REG +1', 'REM_MEM_REG'],
  );
  t.strictSame(frontend.protocolViolations, []);
});

void t.test('without CONFIGURE_MEM_SLOTS the table goes whole', async (t) => {
  const slots = bits(PROTOCOL_F.CONFIGURE_MEM_SLOTS);
  const ram = GuestRam.likeQemu(24 * MIB, { lowBytes: 16 * MIB });
  const { frontend, backend } = await pair(t, { ram }, { protocolFeatures: QEMU_PROTOCOL_FEATURES & ~slots });
  const driver = await BalloonDriver.start(frontend);
  await driver.inflate([(4 * GIB) / PAGE_BYTES + 1]);
  await frontend.addRegion({ gpa: 8 * GIB, lenBytes: 8 * MIB });
  t.strictSame(
    backend.log.filter((entry) => entry.includes('MEM')),
    ['SET_MEM_TABLE +2', 'SET_MEM_TABLE +3'],
  );
});

void t.test('refusals, wrong replies, drops and config changes out of season are found', async (t) => {
  const { frontend, backend } = await pair(t);
  backend.refused.add(REQUEST.SET_CONFIG);
  await t.rejects(frontend.setConfig(0, new Uint8Array(16)), new Nack(REQUEST.SET_CONFIG, 1n));
  backend.changeConfig(0);
  await frontend.waitConfigChanges(1);
  t.strictSame(frontend.protocolViolations.splice(0), [
    'CONFIG_CHANGE_MSG while the device is new: QEMU dereferences NULL',
  ]);
  await frontend.start(0n, []);
  frontend.channel.holdReplies();
  backend.changeConfig(0);
  backend.changeConfig(0);
  await frontend.waitConfigChanges(3);
  t.strictSame(frontend.protocolViolations.splice(0), [
    'a second CONFIG_CHANGE_MSG before the first was answered',
  ]);
  await backend.waitChannelReplies(1);
  frontend.channel.releaseReplies();
  await frontend.stop();
  backend.changeConfig(0);
  await frontend.waitConfigChanges(4);
  t.match(frontend.protocolViolations, [/while the device is stopped/]);
  await backend.waitChannelReplies(4);

  const unanswered = frontend.request(REQUEST.SET_STATUS, u64s(0n), { expectReply: true });
  backend.close();
  await t.rejects(unanswered, /the backend closed the connection instead of a reply to SET_STATUS/);
  await frontend.waitClosed();
});

void t.test('a request that is never answered ends in a clear error', async (t) => {
  const { frontend } = await pair(t, { timeoutMs: 2000 });
  await t.rejects(frontend.ask(REQUEST.SET_STATUS, u64s(0n)), /no sign of a reply to SET_STATUS/);
  await frontend.sendRaw(Uint8Array.of(REQUEST.GET_VRING_BASE, 0, 0, 0, 1, 0, 0, 0));
  await frontend.sendRaw(Uint8Array.of(8, 0, 0, 0));
  await frontend.sendRaw(encodeVringState(3, 0));
  t.equal(readU32((await frontend.reply()).payload), 3);
});

for (const packed of [false, true]) {
  void t.test(`a guest with ${packed ? 'packed' : 'split'} rings lives with the naive backend`, async (t) => {
    const { frontend, backend } = await pair(t);
    const { ram } = frontend;
    let free = 100n;
    const driver = await BalloonDriver.start(frontend, {
      features: LINUX_FEATURES | (packed ? bits(F_RING_PACKED) : 0n),
      poisonValue: 0xaa,
      stats: () => [[4, free++]],
    });
    t.equal(frontend.configCache[12], 0xaa);
    const pfns = Array.from({ length: 1000 }, (_, i) => driver.firstFreePfn + 3 * i);
    const [first = 0, second = 0] = pfns;
    ram.fillPage(first, 1);
    ram.fillPage(first + 1, 1);
    t.ok(ram.pageHolds(first, 1));
    await driver.inflate(pfns);
    t.strictSame([...backend.ballooned], pfns);
    t.ok(ram.pageIsZero(first));
    t.ok(ram.pageHolds(first + 1, 1));
    t.notOk(ram.pageHolds(first + 1, 2));
    t.equal(readU32(backend.config, CONFIG_ACTUAL), 1000);
    await driver.deflate(pfns.slice(1));
    t.strictSame([...backend.ballooned], [first]);
    await driver.tellPfns('inflate', [second]);
    t.equal(driver.balloonPfns.size, 1);
    await driver.tellPfns('deflate', [second]);

    const ranges = Array.from({ length: 40 }, (_, i) => ({ gpa: MIB * (10 + i), len: 64 * 1024 }));
    await driver.report(ranges);
    t.strictSame(backend.reported, ranges);

    for (let asked = 1; asked <= 3; asked++) {
      backend.askStats();
      await driver.waitStatsRequests(asked);
    }
    t.strictSame(
      backend.stats.slice(0, 3).map((bytes) => [...bytes]),
      [100, 101, 102].map((value) => [4, 0, value, 0, 0, 0, 0, 0, 0, 0]),
    );

    driver.followTarget();
    for (const target of [2000, 300, 0, 5]) {
      const seen = frontend.configChanges.length;
      backend.changeConfig(target);
      await frontend.waitConfigChanges(seen + 1);
      await driver.idle();
      t.equal(driver.balloonPfns.size, target);
      t.strictSame(new Set(backend.ballooned), new Set(driver.balloonPfns));
    }
    await driver.unload();
    t.equal(backend.ballooned.size, 0);
    await BalloonDriver.start(frontend);
    t.strictSame(frontend.protocolViolations, []);
  });
}

void t.test('queues are numbered as each party does', (t) => {
  const offered = bits(BALLOON_F.STATS_VQ, BALLOON_F.FREE_PAGE_HINT, BALLOON_F.REPORTING);
  const acked = bits(BALLOON_F.REPORTING);
  t.equal(numberQueues('linux-compressed', acked, offered).get('reporting'), 2);
  t.equal(numberQueues('by-offered', acked, offered & ~bits(BALLOON_F.STATS_VQ)).get('reporting'), 3);
  t.equal(numberQueues('spec-fixed', acked, acked).get('reporting'), 4);
  t.notOk(numberQueues('spec-fixed', acked, offered).has('stats'));
  t.end();
});

void t.test('a test that says not whose messages it sends is found', async (t) => {
  const [ours, theirs] = socketPair();
  const make = (): Frontend => new Frontend({ socket: ours });
  t.throws(make, /says whose messages it sends/);
  await underOrder(CROSVM, async () => {
    const frontend = make();
    t.equal(frontend.order, CROSVM);
    frontend.close();
    await Promise.resolve();
  });
  t.throws(make, /says whose messages it sends/);
  closeFd(theirs);
});

void t.test('nothing stays open', async (t) => {
  const openFds = (): number => readdirSync('/proc/self/fd').length;
  const before = openFds();
  const [ours, theirs] = socketPair();
  const frontend = new Frontend({ socket: ours, order: QEMU });
  const backend = new NaiveBackend(theirs, frontend.ram, { features: FEATURES });
  await frontend.connect();
  await BalloonDriver.start(frontend);
  frontend.ram.fillPage(5, 0);
  t.ok(frontend.ram.allocatedBytes() > 0);
  frontend.close();
  backend.close();
  t.equal(openFds(), before);
});
