// The book of orders: on disk and for the next daemon, and what it does with copies that it cannot read.
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { OrderFiles, stateFolder } from '../../src/daemon/order-files.js';
import { temporaryFolder } from '../support/fleet.js';
import { OrderBook, readBook } from '../../src/vm/order-book.js';
import {
  handedBack,
  inHand,
  limitWords,
  NO_WISHES,
  orderViews,
  pauseView,
  withLimits,
  withTarget,
} from '../../src/vm/orders.js';
import { wallNow } from '../../src/os/clock.js';

const GIB = 2 ** 30;
const orders = { inhibit: { reason: 'backup', since: wallNow() } };

function said(files: OrderFiles): string[] {
  const lines: string[] = [];
  files.listen((event, message) => lines.push(`${event}: ${message}`));
  return lines;
}

void t.test('what is on disk is whole, and the next daemon reads it', async (t) => {
  const folder = temporaryFolder(t);
  const first = new OrderFiles(null, folder);
  t.same(said(first), []);
  for (let n = 0; n < 20; n++) {
    first.book.change('web', { inhibit: { reason: `reason ${n}`, since: wallNow() } });
    await first.kept();
    t.match(JSON.parse(readFileSync(join(folder, 'orders.json'), 'utf8')), {
      vms: { web: { inhibit: { reason: `reason ${n}` } } },
    });
  }
  const second = new OrderFiles(null, folder);
  t.same(second.book.of('web'), first.book.of('web'));
  t.same(second.book.of('another'), {});
  second.book.change('web', {});
  await second.kept();
  t.same(new OrderFiles(null, folder).book.of('web'), {});
});

void t.test('a file that cannot be read is set aside and said, and a new one begins', async (t) => {
  for (const [text, why] of [
    ['rubbish', /is damaged/],
    ['', /is damaged/],
    ['{"version":2,"revision":7,"vms":{}}', /of version 2.*knows 1: start the newer balloond/],
    ['{"version":1,"revision":1,"vms":{"web":{"inhibit":7}}}', /is damaged/],
  ] as const) {
    const folder = temporaryFolder(t);
    writeFileSync(join(folder, 'orders.json'), text);
    const files = new OrderFiles(null, folder);
    const lines = said(files);
    t.equal(lines.length, 1);
    t.match(lines[0], /^orders-set-aside: .*orders\.json\.set-aside/);
    t.match(lines[0], why);
    t.equal(readFileSync(join(folder, 'orders.json.set-aside'), 'utf8'), text, 'nothing is lost');
    files.book.change('web', orders);
    await files.kept();
    t.same(new OrderFiles(null, folder).book.of('web'), orders);
  }
});

void t.test('a limit that only a newer build knows takes no other order away', (t) => {
  const folder = temporaryFolder(t);
  const high = { word: GIB, since: 1 };
  const vms = { web: { ...orders, limits: { high, newer: { ...high, word: 'max' } } } };
  writeFileSync(join(folder, 'orders.json'), JSON.stringify({ version: 1, revision: 7, vms }));
  const files = new OrderFiles(null, folder);
  t.same(said(files), []);
  t.match(files.book.of('web'), orders);
  t.same(limitWords(files.book.of('web')), { high: GIB }, 'and is not set');
  t.end();
});

void t.test('a state directory that takes nothing is said once, and orders hold all the same', async (t) => {
  const full = temporaryFolder(t);
  // Whatever is written to it, there is no room.
  symlinkSync('/dev/full', join(full, 'orders.json.new'));
  const none = join(temporaryFolder(t), 'none');
  const file = join(temporaryFolder(t), 'file');
  writeFileSync(file, '');
  for (const [folder, code] of [
    [full, /ENOSPC.*move something else off/],
    [none, /ENOENT\): create the state directory again/],
    [file, /ENOTDIR\): move the file away that is in the place of/],
  ] as const) {
    const files = new OrderFiles(null, folder);
    const lines = said(files);
    for (let n = 0; n < 3; n++) {
      files.book.change('web', { inhibit: { reason: `reason ${n}`, since: wallNow() } });
      await files.kept();
    }
    t.equal(lines.length, 1, lines.join('\n'));
    t.match(lines[0], /^orders-not-kept: .*end with this daemon/);
    t.match(lines[0], code);
    t.match(files.book.of('web'), { inhibit: { reason: 'reason 2' } });
  }
});

void t.test('a pause of the whole policy is an order that the next daemon finds', async (t) => {
  const folder = temporaryFolder(t);
  const first = new OrderFiles(null, folder);
  t.equal(first.book.paused, null);
  const since = wallNow();
  first.book.pause(since);
  first.book.change('web', orders);
  await first.kept();
  const second = new OrderFiles(null, folder);
  t.equal(second.book.paused, since);
  t.same(second.book.of('web'), orders, 'beside the orders for VMs');
  t.notOk(second.book.isNew);
  second.book.pause(null);
  await second.kept();
  t.equal(new OrderFiles(null, folder).book.paused, null, 'it was taken back');
  t.notMatch(second.book.text(), /paused/, 'as books were before there was such an order');
  const before = `{"version":1,"revision":1,"vms":{"web":${JSON.stringify(orders)}}}`;
  const read = readBook(before);
  t.equal('document' in read && new OrderBook(read.document).paused, null, 'an old book is read as before');
  t.match(readBook('{"version":1,"revision":1,"vms":{},"paused":7}'), { unreadable: /is damaged/ });
  t.match(pauseView(since), {
    order: 'policy',
    says: 'the policy leaves all VMs alone',
    by: 'operator',
    since: new Date(since).toISOString(),
    undo: 'balloonctl policy resume',
  });
});

void t.test('a name that the daemon made up of a process takes its orders along', (t) => {
  const book = new OrderBook();
  for (const name of ['web', 'pid-7', 'pid-7-2', 'pid-web']) {
    book.change(name, orders);
    book.forget(name);
  }
  t.same(Object.keys((JSON.parse(book.text()) as { vms: object }).vms), ['web', 'pid-web']);
  const odd = new OrderBook();
  odd.change('__proto__', orders);
  const read = readBook(odd.text());
  t.same('document' in read && new OrderBook(read.document).of('__proto__'), orders);
  t.end();
});

void t.test('each order is shown with its time and the way to take it back', (t) => {
  const since = wallNow();
  let all = withTarget({ ...orders, paused: { since } }, { memoryBytes: GIB }, since);
  all = withTarget(all, { cacheLimitBytes: 2 * GIB }, since);
  all = withLimits(all, { high: 'follow', max: 4 * GIB }, since);
  const wishes = { inhibit: 'migrates', target: { share: 0.5 }, manual: true };
  const web = { name: 'web', ramBytes: 4 * GIB, has: () => true, cut: () => null };
  const views = orderViews(web, all, wishes);
  t.same(
    views.map(({ order, by, says, undo }) => [order, by, says, undo]),
    [
      ['inhibit', 'operator', 'discard nothing ("backup")', 'balloonctl allow web'],
      ['inhibit', 'configuration', 'discard nothing ("migrates")', mend('inhibit')],
      ['target', 'operator', 'the guest keeps 1 GiB', 'balloonctl policy resume web'],
      [
        'target',
        'configuration',
        'the guest keeps 2 GiB once the order of an operator is taken back',
        mend('target'),
      ],
      [
        'cache-limit',
        'operator',
        'the page cache balloon holds 2 GiB at most',
        'balloonctl policy resume web',
      ],
      ['limit-high', 'operator', 'memory.high follow', 'balloonctl limit web --high restore'],
      ['limit-max', 'operator', 'memory.max 4 GiB', 'balloonctl limit web --max restore'],
      ['policy', 'operator', 'the policy leaves the VM alone', 'balloonctl policy resume web'],
      ['policy', 'configuration', 'the policy leaves the VM alone', mend('target')],
    ],
  );
  t.ok(views.every((one) => (one.since === null) === (one.by === 'configuration')));
  t.notOk(inHand(handedBack(all)));
  t.same(Object.keys(handedBack(all)), ['inhibit', 'limits']);
  t.same(withLimits(all, { high: 'restore', max: 'restore' }, since).limits, undefined);
  t.match(orderViews({ ...web, cut: () => 'it has 1 GiB' }, {}, { ...NO_WISHES, target: { share: 0.5 } }), [
    {
      order: 'target',
      says: 'the guest keeps 2 GiB, but it has 1 GiB',
      by: 'configuration',
      undo: mend('target'),
    },
  ]);
  t.same(
    orderViews({ ...web, name: '-web', has: (part) => part !== 'balloon' }, all, NO_WISHES).map(
      ({ says, undo }) => [says.replace(/^.*?(, which|$)/, '$1'), undo],
    ),
    [
      ['', 'balloonctl allow -- -web'],
      [', which waits until the VM has a balloon device', 'balloonctl policy resume -- -web'],
      ['', 'balloonctl policy resume -- -web'],
      ['', 'balloonctl limit --high restore -- -web'],
      ['', 'balloonctl limit --max restore -- -web'],
      ['', 'balloonctl policy resume -- -web'],
    ],
    'a name that looks like an option, and a target that nobody has the device for',
  );
  t.end();
});
const mend = (key: string): string =>
  `take ${key} out of [[vm]] in the configuration, then run balloonctl reload`;

void t.test('the state directory is the first that the unit names', (t) => {
  t.equal(stateFolder({}), null);
  t.equal(stateFolder({ STATE_DIRECTORY: '' }), null);
  t.equal(stateFolder({ STATE_DIRECTORY: '/var/lib/a:/var/lib/b' }), '/var/lib/a');
  t.end();
});
