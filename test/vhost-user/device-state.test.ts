// The state of a device that goes to another daemon, by way of a snapshot or of a migration (SET_DEVICE_STATE_FD). crosvm asks for it.
// The other VMMs are made to ask as well, each in its order: nothing hinders a later version.
import { execFileSync } from 'node:child_process';
import { constants, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import t, { type Test } from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { readSome, writeSome } from '../../src/os/pipe.js';
import { StateTransfer } from '../../src/vhost-user/state-transfer.js';
import { deviceOptions } from '../../src/daemon/settings.js';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES } from '../support/balloon-driver.js';
import { CACHE_CONFIG_BYTES, CACHE_F, CacheDriver } from '../support/cache-driver.js';
import { resources } from '../support/bystander.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import type { Frontend, FrontendOptions } from '../support/frontend.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { temporaryFolder } from '../support/fleet.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { usualOrder } from '../support/vmm-orders.js';
import { bits, PROTOCOL_F, readU64, REQUEST, u32s, u64s } from '../support/wire.js';

const FIRST = 4096;
const MIB = 2 ** 20;
const SAVE = u32s(0, 0);
const LOAD = u32s(1, 0);
const DONE = u64s(0x100n);
const REFUSED = u64s(0x101n);
const HEAD_AT = 20;
const CHUNK_BYTES = 4096;

/** cloud-hypervisor hides these from its guest, which then owes no discards and sends no statistics. */
const RICH = bits(BALLOON_F.MUST_TELL_HOST, BALLOON_F.STATS_VQ, BALLOON_F.PAGE_POISON, BALLOON_F.REPORTING);
const whereTold = eachOrder({ features: RICH });
/** It hides these as well. */
const whereCached = eachOrder({ features: bits(CACHE_F.RANGES, CACHE_F.TELL_RECLAIM) });

/** A VMM that asks for the state of the device, whichever it is. */
function asking(): Pick<FrontendOptions, 'protocolFeatures'> {
  return { protocolFeatures: usualOrder().protocolFeatures | bits(PROTOCOL_F.DEVICE_STATE) };
}

function pipe(t: Test): { reader: number; writer: number } {
  const path = join(temporaryFolder(t), 'pipe');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  return { reader, writer };
}

/** Writes for as long as it is read. */
async function flood(writer: number): Promise<void> {
  const zeros = new Uint8Array(MIB);
  for (;;) if (writeSome(writer, zeros, 0) < 0) await turn();
}

async function save(t: Test, frontend: Frontend): Promise<Buffer> {
  const { reader, writer } = pipe(t);
  t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, SAVE, [writer]), DONE);
  closeFd(writer);
  const parts: Uint8Array[] = [];
  for (;;) {
    const part = new Uint8Array(65536);
    const got = readSome(reader, part);
    if (got === 0) break;
    if (got < 0) await sleep(1);
    else parts.push(part.slice(0, got));
  }
  closeFd(reader);
  t.equal(readU64(await frontend.ask(REQUEST.CHECK_DEVICE_STATE)), 0n);
  return Buffer.concat(parts);
}

/** A VMM may ask for no answer to what the driver writes. */
async function holds(served: ServedVm, pages: number): Promise<void> {
  await served.until(({ balloon }) => balloon.actualBytes === pages * PAGE_BYTES, `it holds ${pages} pages`);
}

/** Returns what CHECK_DEVICE_STATE says. */
async function load(t: Test, frontend: Frontend, bytes: Uint8Array): Promise<bigint> {
  const { reader, writer } = pipe(t);
  t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, LOAD, [reader]), DONE);
  closeFd(reader);
  for (let sent = 0; sent < bytes.length;) {
    const wrote = writeSome(writer, bytes, sent);
    if (wrote < 0) await sleep(1);
    else sent += wrote;
  }
  closeFd(writer);
  return readU64(await frontend.ask(REQUEST.CHECK_DEVICE_STATE));
}

interface Saved {
  served: ServedVm;
  driver: BalloonDriver;
  /** The pages that owe a discard: none where the driver need not tell first. */
  owed: readonly number[];
  bytes: Buffer;
  /** Of the statistics, before the state was asked for. */
  ageSeconds: number;
}

const HELD = pfns(FIRST, 1000);
const OWED = pfns(FIRST + 2000, 100);

/** A VM that was saved, with 1,100 pages in its balloon, of which 100 may owe a discard; it is stopped. */
async function saved(t: Test, poisonValue?: number): Promise<Saved> {
  const { served, frontend, driver } = await ServedVm.running({
    frontend: asking(),
    driver: {
      features: LINUX_FEATURES | bits(BALLOON_F.PAGE_POISON),
      ...(poisonValue !== undefined && { poisonValue }),
      stats: () => [[4, 12345n]],
    },
  });
  served.vm.setTarget({ balloonBytes: 16 * MIB });
  await driver.inflate(HELD);
  await served.discarded();
  await holds(served, HELD.length);
  const tells = (frontend.order.passes & RICH) === RICH;
  t.equal(await served.device.refreshStats(tells ? 5000 : 1), tells);
  await served.vm.setInhibited('a snapshot');
  for (const pfn of OWED) frontend.ram.fillPage(pfn, 1);
  await driver.inflate(OWED);
  await holds(served, HELD.length + OWED.length);
  const owed = tells ? OWED : [];
  t.equal(served.view.balloon.pendingBytes, owed.length * PAGE_BYTES);
  await frontend.pause();
  const ageSeconds = served.view.stats?.ageSeconds ?? NaN;
  return { served, driver, owed, ageSeconds, bytes: await save(t, frontend) };
}

/** The VM goes on with another daemon, which is given this state. */
async function restored(t: Test, { served }: Saved, bytes: Uint8Array, answer: bigint): Promise<ServedVm> {
  const { frontend } = served;
  const other = new ServedVm({ over: frontend });
  await frontend.reconnect(other.socket, async () => {
    t.equal(await load(t, frontend, bytes), answer);
  });
  await other.until(({ state }) => state === 'running', 'it runs again');
  return other;
}

whereTold('another daemon goes on with all that is known of the driver', async (t) => {
  const before = await saved(t, 0xaaaaaaaa);
  const { driver, bytes, ageSeconds } = before;
  const { ram } = before.served.frontend;
  const other = await restored(t, before, bytes, 0n);
  const { balloon, stats } = other.view;
  t.match(balloon, { targetBytes: 16 * MIB, actualBytes: 1100 * PAGE_BYTES, actualUnknown: false });
  t.match(stats, { VIRTIO_BALLOON_S_MEMFREE: 12345 });
  t.ok((stats?.ageSeconds ?? 0) >= ageSeconds, 'statistics get no younger');
  await other.discarded();
  t.ok(
    OWED.every((pfn) => ram.pageIsZero(pfn)),
    'pages that owed their discard',
  );
  t.equal(other.view.balloon.discardedBytesTotal, OWED.length * PAGE_BYTES, 'and no others');
  ram.fillPage(FIRST + 4000, 1);
  await driver.report([{ gpa: (FIRST + 4000) * PAGE_BYTES, len: PAGE_BYTES }]);
  t.ok(ram.pageHolds(FIRST + 4000, 1), 'the guest relies on its poison');
  await driver.deflate(OWED);
  await holds(other, HELD.length);
  t.same(other.frontend.protocolViolations, []);
  await other.close();
});

inEachOrder('another daemon goes on with what is known of any driver', async (t) => {
  const before = await saved(t);
  const other = await restored(t, before, before.bytes, 0n);
  const known = { targetBytes: 16 * MIB, actualBytes: 1100 * PAGE_BYTES, actualUnknown: false };
  t.match(other.view.balloon, known);
  await other.discarded();
  t.equal(other.view.balloon.discardedBytesTotal, before.owed.length * PAGE_BYTES);
  await before.driver.deflate(OWED);
  await holds(other, HELD.length);
  t.same(other.saw('frontend-error'), []);
  t.same(other.frontend.protocolViolations, []);
  await other.close();
});

inEachOrder('a frontend that saves may go on', async (t) => {
  const { served, driver, owed, bytes } = await saved(t);
  const { frontend } = served;
  await frontend.resume();
  await served.until(({ state }) => state === 'running', 'it goes on');
  t.match(served.view.balloon, {
    actualBytes: 1100 * PAGE_BYTES,
    pendingBytes: owed.length * PAGE_BYTES,
  });
  await driver.deflate(OWED);
  await holds(served, HELD.length);
  await frontend.pause();
  t.notSame(await save(t, frontend), bytes, 'what is saved later is another state');
  await frontend.resume();
  await driver.inflate(OWED);
  await holds(served, HELD.length + OWED.length);
  t.same(served.saw('frontend-error'), []);
  await served.close();
});

whereCached('a page cache balloon goes on with all that is known of its driver', async (t) => {
  const settings = { path: '/cache', device: 'cache-balloon' } as const;
  const options = { ...deviceOptions({}, settings, 'vm'), statsIntervalSeconds: 0 };
  const space = { ...asking(), queueCount: 2, configBytes: CACHE_CONFIG_BYTES };
  const served = new ServedVm({ ...options, frontend: space });
  const { frontend } = served;
  await frontend.connect();
  const driver = await CacheDriver.start(frontend);
  await served.until(({ state }) => state === 'running', 'it runs');
  served.vm.setTarget({ cacheLimitBytes: 16 * MIB });
  await driver.add([{ pfn: FIRST, order: 9 }]);
  await driver.reclaimed([{ pfn: FIRST, order: 8 }]);
  await holds(served, 256);
  await frontend.pause();
  const bytes = await save(t, frontend);

  const other = new ServedVm({ ...options, over: frontend });
  await frontend.reconnect(other.socket, async () => {
    t.equal(await load(t, frontend, bytes), 0n);
  });
  await other.until(({ state }) => state === 'running', 'it runs again');
  const known = { targetBytes: 16 * MIB, actualBytes: 256 * PAGE_BYTES, actualUnknown: false };
  t.match(other.view.balloon, known);
  await driver.reclaimed([{ pfn: FIRST, order: 8 }]);
  await driver.add([{ pfn: FIRST + 512, order: 9 }]);
  await holds(other, 256 + 512);
  t.same(other.saw('frontend-error'), []);
  t.same(frontend.protocolViolations, []);
  await other.close();
});

inEachOrder('a state that came and was not started from is saved as it came', async (t) => {
  const before = await saved(t);
  const { frontend } = before.served;
  const other = new ServedVm({ over: frontend });
  await frontend.reconnect(other.socket, async () => {
    t.equal(await load(t, frontend, before.bytes), 0n);
    t.same(await save(t, frontend), before.bytes);
  });
  await other.close();
});

/** The state with another head, and a checksum that fits. */
function withHead(bytes: Buffer, change: (head: Record<string, unknown>) => unknown): Buffer {
  const end = HEAD_AT + bytes.readUInt32LE(12);
  const head = JSON.parse(bytes.toString('utf8', HEAD_AT, end)) as Record<string, unknown>;
  const text = Buffer.from(JSON.stringify(change(head)));
  const made = Buffer.concat([bytes.subarray(0, HEAD_AT), text, bytes.subarray(end)]);
  made.writeUInt32LE(text.length, 12);
  made.writeUInt32LE(crc32(made.subarray(HEAD_AT)), 16);
  return made;
}

function changed(bytes: Buffer, at: number, value: number): Buffer {
  const made = Buffer.from(bytes);
  made[at] = value;
  return made;
}

const BAD: readonly (readonly [what: string, make: (good: Buffer) => Uint8Array, says: RegExp])[] = [
  ['nothing', () => new Uint8Array(0), /ends after 0 bytes/],
  ['less than a head', (good) => good.subarray(0, 19), /ends after 19 bytes/],
  ['half of it', (good) => good.subarray(0, good.length / 2), /checksum/],
  ['a byte more', (good) => Buffer.concat([good, new Uint8Array(1)]), /checksum/],
  ['another byte', (good) => changed(good, good.length - 1, 7), /checksum/],
  ['that of another program', () => Buffer.from('QEVM'.repeat(100)), /not from balloond: restore the VM/],
  ['no version', (good) => changed(good, 8, 0), /no version/],
  [
    'that of a newer balloond',
    (good) => changed(good, 8, 2),
    /a newer balloond.*version 2.*: restore the VM/,
  ],
  ['a head that is too long', (good) => changed(good, 15, 0x7f), /ends after/],
  ['a head of another kind', (good) => withHead(good, () => []), /the state of the device: /],
  ['a field less', (good) => withHead(good, ({ actual, ...head }) => ({ ...head, was: actual })), /actual/],
  ['a figure too large', (good) => withHead(good, (head) => ({ ...head, numPages: 2 ** 32 })), /numPages/],
  [
    'that of a page cache balloon',
    (good) => withHead(good, (head) => ({ ...head, kind: 'cache-balloon' })),
    /of the kind cache-balloon, and this one is of balloon/,
  ],
  ['fewer pages than it says', (good) => withHead(good, (head) => ({ ...head, pending: [0, 1] })), /chunks/],
  [
    'pages that owe a discard outside the balloon',
    (good) => {
      const balloonedEnd = HEAD_AT + good.readUInt32LE(12) + CHUNK_BYTES;
      const all = Buffer.alloc(CHUNK_BYTES, 0xff);
      const body = Buffer.concat([good.subarray(0, balloonedEnd), all]);
      return withHead(body, (head) => ({ ...head, pending: head['ballooned'] }));
    },
    /outside the balloon/,
  ],
];

for (const [what, make, says] of BAD) {
  inEachOrder(`${what} is refused with words, and the VM starts without it`, async (t) => {
    const open = resources();
    const before = await saved(t);
    const other = await restored(t, before, make(before.bytes), 1n);
    t.match(other.saw('state-failed'), [{ fields: { request: 'CHECK_DEVICE_STATE' }, message: says }]);
    t.same(other.saw('frontend-error'), []);
    t.equal(other.view.balloon.actualUnknown, true, 'the guest may hold any amount');
    await before.driver.deflate(OWED);
    await holds(other, HELD.length);
    t.same(other.frontend.protocolViolations, []);
    await other.close();
    t.same(resources(), open, 'nothing is left open or mapped');
  });
}

/** What a VMM may send that never acked the feature, and what a driver of such a VM does meanwhile. */
inEachOrder('a VMM that did not ack the feature is refused, and its VM goes on', async (t) => {
  const without = usualOrder().protocolFeatures & ~bits(PROTOCOL_F.DEVICE_STATE);
  const { served, frontend, driver } = await ServedVm.running({ frontend: { protocolFeatures: without } });
  for (const direction of [LOAD, SAVE]) {
    const { reader, writer } = pipe(t);
    t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, direction, [writer]), REFUSED);
    [reader, writer].forEach(closeFd);
  }
  t.equal(readU64(await frontend.ask(REQUEST.CHECK_DEVICE_STATE)), 1n);
  t.match(
    served.saw('frontend-error').map(({ fields }) => fields['request']),
    ['SET_DEVICE_STATE_FD', 'SET_DEVICE_STATE_FD', 'CHECK_DEVICE_STATE'],
  );
  await driver.inflate(HELD);
  await holds(served, HELD.length);
  t.same(frontend.protocolViolations, []);
  await served.close();
});

inEachOrder('no state is taken or given while the device runs', async (t) => {
  const { served, frontend, driver } = await ServedVm.running({ frontend: asking() });
  await driver.inflate(HELD);
  for (const direction of [LOAD, SAVE]) {
    const { reader, writer } = pipe(t);
    t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, direction, [writer]), REFUSED);
    [reader, writer].forEach(closeFd);
  }
  t.match(served.saw('frontend-error'), [
    { message: 'SET_DEVICE_STATE_FD (load) while the device runs' },
    { message: 'SET_DEVICE_STATE_FD (save) while the device runs' },
  ]);
  t.equal(readU64(await frontend.ask(REQUEST.CHECK_DEVICE_STATE)), 1n);
  await holds(served, HELD.length);
  await driver.deflate(HELD);
  await holds(served, 0);
  t.same(frontend.protocolViolations, []);
  await served.close();
});

inEachOrder('a state that is still coming when the device starts is not taken', async (t) => {
  const before = await saved(t);
  const { frontend } = before.served;
  const other = new ServedVm({ over: frontend });
  const { reader, writer } = pipe(t);
  await frontend.reconnect(other.socket, async () => {
    t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, LOAD, [reader]), DONE);
  });
  await other.until(({ state }) => state === 'running', 'it runs');
  t.equal(writeSome(writer, before.bytes, 0), before.bytes.length);
  [reader, writer].forEach(closeFd);
  t.equal(readU64(await frontend.ask(REQUEST.CHECK_DEVICE_STATE)), 1n);
  t.match(other.saw('state-failed'), [{ message: /started before all of its state came/ }]);
  t.equal(other.view.balloon.actualUnknown, true);
  await other.close();
});

inEachOrder('a VMM that goes while its state comes or goes leaves nothing behind', async (t) => {
  const open = resources();
  const before = await saved(t);
  const { frontend } = before.served;
  const other = new ServedVm({ over: frontend });
  const coming = pipe(t);
  await frontend.reconnect(other.socket, async () => {
    t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, LOAD, [coming.reader]), DONE);
  });
  await frontend.pause();
  const going = pipe(t);
  t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, SAVE, [going.writer]), DONE);
  await other.close();
  [coming.reader, coming.writer, going.reader, going.writer].forEach(closeFd);
  t.same(resources(), open);
});

inEachOrder('a state without an end is refused with words, and the VM starts without it', async (t) => {
  const before = await saved(t);
  const { frontend } = before.served;
  const other = new ServedVm({ over: frontend });
  await frontend.reconnect(other.socket, async () => {
    const { reader, writer } = pipe(t);
    t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, LOAD, [reader]), DONE);
    closeFd(reader);
    await t.rejects(flood(writer), { code: 'EPIPE' });
    closeFd(writer);
    t.equal(readU64(await frontend.ask(REQUEST.CHECK_DEVICE_STATE)), 1n);
  });
  t.match(other.saw('state-failed'), [{ message: /longer than 67108864 bytes/ }]);
  await other.until(({ state }) => state === 'running', 'it runs');
  t.equal(other.view.balloon.actualUnknown, true);
  await before.driver.deflate(OWED);
  await holds(other, HELD.length);
  await other.close();
});

inEachOrder('a request that makes no sense is refused', async (t) => {
  const served = new ServedVm({ frontend: asking() });
  const { frontend } = served;
  await frontend.connect();
  t.equal(readU64(await frontend.ask(REQUEST.CHECK_DEVICE_STATE)), 1n, 'nothing was transferred');
  for (const payload of [u32s(2, 0), u32s(0, 1)]) {
    const { reader, writer } = pipe(t);
    t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, payload, [writer]), REFUSED);
    [reader, writer].forEach(closeFd);
  }
  const file = join(temporaryFolder(t), 'file');
  writeFileSync(file, 'a file on disk would keep the daemon waiting');
  const fd = openSync(file, 'r+');
  t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, LOAD, [fd]), REFUSED);
  closeFd(fd);
  t.same(await frontend.ask(REQUEST.SET_DEVICE_STATE_FD, LOAD), REFUSED, 'no fd');
  const driver = await BalloonDriver.start(frontend);
  await driver.inflate(HELD);
  await holds(served, HELD.length);
  await served.close();
});

void t.test('a stream without an end is given up', async (t) => {
  let taken = 0;
  const load = (): void => {
    taken++;
  };
  const transfer = (patienceMs?: number): StateTransfer =>
    new StateTransfer({ load, measure: (work) => work() }, patienceMs);
  const settled = async (one: StateTransfer): Promise<void> => {
    await new Promise<void>((resolve) => {
      if (one.whenSettled(resolve)) resolve();
    });
  };
  const silent = transfer(20);
  const quiet = pipe(t);
  silent.load(quiet.reader);
  await settled(silent);
  t.throws(() => silent.check(), /did not go through within 0.02 s/);
  closeFd(quiet.writer);

  const endless = transfer();
  const { reader, writer } = pipe(t);
  endless.load(reader);
  await t.rejects(flood(writer), { code: 'EPIPE' });
  t.throws(() => endless.check(), /longer than 67108864 bytes/);
  closeFd(writer);

  const unread = transfer();
  const nobody = pipe(t);
  unread.save(nobody.writer, new Uint8Array(2 ** 20));
  closeFd(nobody.reader);
  await settled(unread);
  t.throws(() => unread.check(), /closed its end|EPIPE/);
  t.equal(taken, 0);
});
