// VMs that were served by builds of some time ago, as these left them (states/freeze.ts): this one goes on with them.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { decodeVmRecord, encodeVmRecord, identifyVm, type VmRecord } from '../../src/vm/record.js';
import { StateError } from '../../src/memory/state-file.js';
import { msAgo, toWall, wallNow, type WallMs } from '../../src/os/clock.js';
import { OrderBook, readBook } from '../../src/vm/order-book.js';
import type { Orders } from '../../src/vm/orders.js';
import { PAGE_BYTES } from '../support/guest-ram.js';
import { readU32 } from '../support/wire.js';
import { turns, until } from '../fuzz/fuzzer.js';
import { STATES, type FrozenVm } from './states/frozen-vm.js';
import { ThawedVm } from './states/thawed-vm.js';

/** Of a reply: its header, and what comes before the bytes of the config space. */
const CONFIG_AT = 12 + 12;

const NEVER = 0 as WallMs;
const FOLLOWS: Orders = { limits: { max: { word: 'follow', since: NEVER } } };

const files = readdirSync(STATES).filter((name) => name.endsWith('.json'));
const frozen = files.map((name): [string, FrozenVm] => [
  name,
  JSON.parse(readFileSync(join(STATES, name), 'utf8')) as FrozenVm,
]);

function versionOf(record: string): unknown {
  return (JSON.parse(record) as Record<string, unknown>)['version'];
}

for (const [name, left] of frozen) {
  void t.test(name, async (t) => {
    const { before, offered } = left;
    const thawed = new ThawedVm(left);
    const guests = thawed.page(offered.keptPfn);
    t.ok(guests.every((byte) => byte !== 0));
    t.ok(thawed.signalled() > 0, 'drivers are interrupted once');

    // What the guest had offered when nobody served it.
    const deflated = before.deflatedBytesTotal + offered.deflateBytes;
    await until(() => thawed.view.balloon.deflatedBytesTotal === deflated, 'what was offered is taken');
    await until(() => thawed.view.balloon.pendingBytes === 0, 'what was given up is discarded');
    await until(() => thawed.view.stats !== null, 'the statistics buffer is held again');
    const { balloon, state, verdict, features } = thawed.view;
    t.match(balloon, {
      targetBytes: before.targetBytes,
      actualBytes: before.actualBytes,
      inflatedBytesTotal: before.inflatedBytesTotal + offered.inflateBytes,
      deflatedBytesTotal: deflated,
    });
    t.equal(balloon.discardedBytesTotal, before.discardedBytesTotal + offered.inflateBytes);
    t.same([state, verdict, features], ['running', null, left.features]);
    t.ok(thawed.page(offered.givenPfn).every((byte) => byte === 0));
    t.same(thawed.page(offered.keptPfn), guests, 'a page of the guest');

    thawed.askConfig();
    await turns(20);
    const reply = thawed.readReply();
    t.equal(readU32(reply, CONFIG_AT), before.targetBytes / PAGE_BYTES, 'the VMM is answered');

    const now = decodeVmRecord(thawed.record);
    t.equal(versionOf(thawed.record), now.version, 'the next daemon finds what this balloond knows');
    t.same(encodeVmRecord(now), thawed.record);
    thawed.close();
    await until(() => thawed.ended, 'the VM ends');
  });
}

void t.test('what was wrong stays so, and statistics get no younger', async (t) => {
  const [[, left] = []] = frozen;
  if (left === undefined) throw new Error('nothing is kept');
  const before = new ThawedVm(left);
  await turns(20);
  const { stats, balloon } = before.view;
  const { ageSeconds, ...values } = stats ?? { ageSeconds: Infinity };
  t.ok(ageSeconds < 60 && Object.keys(values).length > 0);
  before.close();
  const receivedAt = toWall(msAgo(3_600_000));
  const thawed = new ThawedVm(left, (record) => ({
    ...record,
    problem: 'ring 0 is stopped',
    stats: { receivedAt, values },
    session: {
      ...record.session,
      vrings: record.session.vrings.map((vring, n) => (n === 0 ? { ...vring, broken: 'bad chain' } : vring)),
    },
  }));
  const deflated = left.before.deflatedBytesTotal + left.offered.deflateBytes;
  await until(() => thawed.view.balloon.deflatedBytesTotal === deflated, 'the other rings are served');
  await turns(20);
  t.equal(
    thawed.view.balloon.inflatedBytesTotal,
    left.before.inflatedBytesTotal,
    'the one that broke is not',
  );
  t.ok(Number(balloon.inflatedBytesTotal) > left.before.inflatedBytesTotal, 'as it would be');
  t.same(thawed.view.diagnosis, {
    code: 'earlier-build',
    text: 'ring 0 is stopped',
    remedy: 'see balloond(8)',
  });
  t.match(decodeVmRecord(thawed.record).session.vrings[0], { broken: 'bad chain' }, 'it is handed on');
  t.ok((thawed.view.stats?.ageSeconds ?? 0) >= 3600, 'the same buffer is seen once more');
  thawed.close();
  await until(() => thawed.ended, 'the VM ends');
});

void t.test(
  'there is one of each version, and of this one as a build without a book of orders left it',
  (t) => {
    const [[, first] = []] = frozen;
    if (first === undefined) throw new Error('nothing is kept');
    const thawed = new ThawedVm(first);
    const { version } = decodeVmRecord(thawed.record);
    const versions = new Set(frozen.map(([, each]) => each.version));
    for (let old = 1; old <= version; old++) t.ok(versions.has(old), `version ${old}`);
    thawed.close();
    t.end();
  },
);

void t.test('a record that this build does not know is refused, with a word on what to do', (t) => {
  const newer = JSON.stringify({ version: 1000, name: 'web-1', connection: 'c7', session: 'other' });
  t.throws(() => decodeVmRecord(newer), {
    name: 'StateError',
    message: /newer balloond.*start the newer balloond again.*do not reboot/,
  });
  t.same(identifyVm(newer), { name: 'web-1', connection: 'c7' });
  for (const odd of ['', '1', 'null', '[]', '{}', '{"version":0}', '{"version":1.5}', '{"version":"2"}']) {
    t.throws(() => decodeVmRecord(odd), StateError);
    t.same(identifyVm(odd), { name: null, connection: null });
  }
  // Whatever an upgrade is given, what it makes is checked.
  for (const session of [
    undefined,
    null,
    'x',
    [],
    {},
    { vrings: 1 },
    { vrings: [null, 1], regions: ['x'] },
  ]) {
    t.throws(() => decodeVmRecord(JSON.stringify({ version: 1, name: 'x', session })), StateError);
  }
  t.end();
});

void t.test('what a build without a book of orders wrote down is what its operator said last', (t) => {
  const [, left] = frozen[0] ?? [];
  if (left === undefined) throw new Error('no state');
  const since = wallNow();
  const target = { of: 'balloon', bytes: left.before.targetBytes, since } as const;
  const stale = { target, inhibit: { reason: 'backup', since }, limits: { high: { word: 1, since } } };
  const book = (): OrderBook => {
    const before = new OrderBook();
    before.change('frozen', stale);
    const read = readBook(before.text());
    if (!('document' in read)) throw new Error(read.unreadable);
    return new OrderBook(read.document);
  };
  const cases: [string, Partial<VmRecord>, Orders][] = [
    ['it took all back', { inhibited: null, manual: false }, {}],
    [
      'it inhibited for another reason',
      { inhibited: 'other' },
      { inhibit: { reason: 'other', since: NEVER } },
    ],
    ['it said the same', { inhibited: 'backup', manual: true }, { inhibit: stale.inhibit, target }],
    ['it wants memory later', { wantedMemoryBytes: 7 }, { target: { of: 'guest', bytes: 7, since: NEVER } }],
    ['the policy forced it', { forcedFrom: { high: null, max: 'follow' } }, FOLLOWS],
    ['it had limits', { limits: { path: '/x', maxBytes: { found: null, wanted: 'follow' } } }, FOLLOWS],
    ['a build with a book', { booked: true, inhibited: null, manual: false }, stale],
  ];
  for (const [what, change, orders] of cases) {
    const thawed = new ThawedVm(left, (record) => ({ ...record, ...change }), book());
    t.same(thawed.vm.orders, orders, what);
    t.equal(thawed.vm.manual, orders.target !== undefined, what);
    // For a build without a book, which may come next.
    const { inhibited, manual, forcedFrom, booked } = decodeVmRecord(thawed.record);
    t.same([inhibited, manual, booked], [orders.inhibit?.reason ?? null, thawed.vm.manual, true], what);
    t.equal(forcedFrom, null, what);
    thawed.close();
  }
  const paused = book();
  paused.pause(since);
  paused.change('frozen', {});
  const inWhole = new ThawedVm(left, (record) => ({ ...record, inhibited: null, manual: true }), paused);
  t.same(inWhole.vm.orders, {}, 'a build without a book left it alone because of the whole pause');
  t.equal(paused.paused, since);
  t.equal(decodeVmRecord(inWhole.record).manual, true, 'and so does the next such build');
  paused.pause(null);
  inWhole.vm.pauseChanged();
  t.equal(decodeVmRecord(inWhole.record).manual, false);
  inWhole.close();
  const lost = new ThawedVm(left, (record) => ({
    ...record,
    booked: true,
    inhibited: 'backup',
    manual: true,
  }));
  t.match(lost.vm.orders, { inhibit: { reason: 'backup' }, paused: {} }, 'the book was lost');
  lost.close();
  t.end();
});
