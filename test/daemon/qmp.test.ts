// VMs that are adopted over QMP, of a QEMU that is modelled: their figures, their orders, and peers that are hostile.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { DaemonEvent, VmView } from '../../protocol/control/schema.js';
import { VmFleet } from '../../src/daemon/fleet.js';
import { OrderFiles } from '../../src/daemon/order-files.js';
import { socketsAt } from '../../src/daemon/qmp-sockets.js';
import type { ConfigFile } from '../../src/daemon/settings.js';
import { EventLog } from '../../src/ops/event-log.js';
import { readBook } from '../../src/vm/order-book.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { closeFd } from '../../src/os/fd.js';
import { listenUnix } from '../../src/os/socket.js';
import { HostTree } from '../support/host-tree.js';
import { MIB, QemuModel, socketFolder, soon } from '../support/qemu-model.js';

interface Adopting {
  readonly fleet: VmFleet;
  readonly folder: string;
  readonly events: DaemonEvent[];
  readonly orders: OrderFiles;
  /** The view of the VM; fails where there is none. */
  readonly show: (name?: string) => VmView;
  readonly told: (event: string) => DaemonEvent[];
}

function ignore(): void {
  return;
}

/** A fleet that adopts the sockets of a folder where `globs` says so. */
function adopting(
  t: Test,
  globs = false,
  config: ConfigFile = {},
  orders = new OrderFiles(null, null),
  own: readonly string[] = [],
): Adopting {
  const folder = socketFolder(t);
  const tree = new HostTree(t);
  tree.process(process.pid, '/vms/web');
  tree.write('proc/meminfo', 'MemTotal: 4194304 kB\nMemAvailable: 4194304 kB\n');
  const log = new EventLog({ debug: ignore, info: ignore, warn: ignore, error: ignore });
  const events: DaemonEvent[] = [];
  log.subscribe((event) => events.push(event));
  const qmp = globs ? { qmp: [{ path: join(folder, '*.qmp') }] } : {};
  const fleet = new VmFleet({ ...qmp, ...config }, log, NO_KEEPER, {
    paths: tree.paths,
    pinCheckMs: 20,
    orders,
    ownSockets: () => own,
  });
  fleet.startPolicy();
  t.teardown(async () => {
    await fleet.leave();
    fleet.close();
  });
  return {
    fleet,
    folder,
    events,
    orders,
    show: (name = 'web') => {
      const view = fleet.control.find(name);
      if (view === undefined) throw new Error(`no VM ${name}: ${fleet.control.names().join()}`);
      return view;
    },
    told: (name) => events.filter(({ event }) => event === name),
  };
}

void t.test('a VM is adopted with what QEMU says of it, moves and reaches its target', async (t) => {
  const { fleet, folder, show, told } = adopting(t);
  const qemu = await QemuModel.start(t, join(folder, 'a'), { balloonBytes: 256 * MIB });
  const adopted = await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  t.same(adopted, { path: qemu.path, by: 'operator', vm: 'web', problem: null });
  t.match(show(), {
    name: 'web',
    pid: process.pid,
    kind: 'qmp',
    socket: qemu.path,
    state: 'running',
    ramBytes: 1024 * MIB,
    memory: { sharedBytes: 0, discardableBytes: 0 },
    balloon: {
      targetBytes: 256 * MIB,
      actualBytes: 256 * MIB,
      discardedBytesTotal: null,
      refilledBytes: null,
    },
    cache: null,
    verdict: null,
    features: [],
    policy: { mode: 'observe' },
  });
  t.notOk(qemu.commands.includes('balloon'), 'the balloon stays as it was found');
  await soon(() => show().stats !== null, 'statistics come');
  t.match(show().stats, { VIRTIO_BALLOON_S_AVAIL: 600 * MIB });
  t.notOk(Object.hasOwn(show().stats ?? {}, 'VIRTIO_BALLOON_S_SWAP_IN'), 'which the guest did not send');
  const ordered = await fleet.control.setTarget('web', { memoryBytes: 512 * MIB });
  t.match(ordered, {
    balloon: { targetBytes: 512 * MIB },
    policy: { mode: 'manual' },
    orders: [{ order: 'target' }],
  });
  await soon(() => told('target-reached').length === 1, 'it is reached');
  t.equal(qemu.targetBytes, 512 * MIB);
  t.match(show().balloon, { targetBytes: 512 * MIB, actualBytes: 512 * MIB });
  t.match(fleet.control.live(), { vms: [{ name: 'web', actualBytes: 512 * MIB }] });
  t.match(
    (await fleet.control.metrics()).toString(),
    /balloond_vm_balloon_actual_bytes\{vm="web"\} 536870912/,
  );
  t.notMatch(
    (await fleet.control.metrics()).toString(),
    /balloond_vm_balloon_discarded_bytes_total\{vm="web"/,
  );
});

void t.test(
  'orders that were given before hold for the VM that comes, and after it came again',
  async (t) => {
    const { fleet, folder, show, told, orders } = adopting(t, true);
    orders.book.change('web', { target: { of: 'balloon', bytes: 128 * MIB, since: 0 as never } });
    const path = join(folder, 'web.qmp');
    const first = await QemuModel.start(t, path);
    await soon(() => told('target-reached').length === 1, 'the order is kept');
    t.equal(first.targetBytes, 128 * MIB);
    await first.end();
    await soon(() => fleet.size === 0, 'the VM is gone');
    const second = await QemuModel.start(t, path);
    await soon(() => told('target-reached').length === 2, 'and again');
    t.equal(second.targetBytes, 128 * MIB);
    t.match(show().orders, [{ order: 'target' }]);
  },
);

void t.test('the interval of statistics is put back, and one that is shorter stays', async (t) => {
  for (const [found, then] of [
    [0, 10],
    [60, 10],
    [3, 3],
  ] as const) {
    const { fleet, folder, show } = adopting(t);
    const qemu = await QemuModel.start(t, join(folder, 'a'), { interval: found });
    await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
    await soon(() => qemu.commands.includes(`qom-set ${then}`), 'an interval is set');
    t.equal(qemu.interval, then);
    await fleet.control.setStatsInterval('web', 2);
    t.equal(show().statsIntervalSeconds, 2);
    await soon(() => qemu.interval === 2, 'an operator sets another one');
    const released = await fleet.control.changeAdopted({ path: qemu.path, adopted: false });
    t.same(released, { path: qemu.path, by: 'operator', vm: 'web', problem: null });
    t.equal(qemu.interval, found);
    await soon(() => qemu.clients === 0 && fleet.size === 0, 'nobody is connected');
  }
});

void t.test(
  'a daemon that was killed leaves its interval, and the next one puts back the one before',
  async (t) => {
    const killed = adopting(t);
    const qemu = await QemuModel.start(t, join(killed.folder, 'a'), { interval: 60 });
    await killed.fleet.control.changeAdopted({ path: qemu.path, adopted: true });
    await soon(() => qemu.interval === 10, 'an interval is set');
    const text = killed.orders.book.text();
    qemu.drop();
    const orders = new OrderFiles(null, null);
    const read = readBook(text);
    t.ok('document' in read, 'it is written down');
    if (!('document' in read)) return;
    orders.book.noteInterval(Object.keys(read.document.intervals ?? {})[0] ?? '', 60, () => true);
    const next = adopting(t, false, {}, orders);
    await next.fleet.control.changeAdopted({ path: qemu.path, adopted: true });
    t.equal(qemu.interval, 10, 'as it was left');
    await next.fleet.control.changeAdopted({ path: qemu.path, adopted: false });
    t.equal(qemu.interval, 60);
    t.notMatch(orders.book.text(), /intervals/, 'and it is forgotten');
  },
);

void t.test('fresh statistics are asked for, and missed where the guest sends none', async (t) => {
  const { fleet, folder } = adopting(t);
  const qemu = await QemuModel.start(t, join(folder, 'a'));
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  const { stats } = await fleet.control.refreshStats('web', 20_000);
  t.match(stats, { VIRTIO_BALLOON_S_AVAIL: 600 * MIB });
  qemu.driverRuns = false;
  await t.rejects(fleet.control.refreshStats('web', 1500), {
    message: /did not send statistics within 1.5 s/,
  });
  t.equal(qemu.interval, 10, 'QEMU asks as before');
});

void t.test('a VM that is paused, reset, resumed and unplugged', async (t) => {
  const { fleet, folder, show, told } = adopting(t);
  const qemu = await QemuModel.start(t, join(folder, 'a'));
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  await fleet.control.setTarget('web', { balloonBytes: 256 * MIB });
  await soon(() => show().balloon.actualBytes === 256 * MIB, 'it is reached');
  qemu.emit('STOP');
  await soon(() => show().state === 'stopped', 'it is paused');
  t.equal(show().balloon.actualBytes, 256 * MIB);
  t.equal(show().diagnosis?.code, 'stopped');
  const sent = (): number => qemu.commands.filter((one) => one === 'balloon').length;
  const before = sent();
  qemu.emit('RESUME');
  await soon(() => show().state === 'running', 'it goes on');
  await soon(() => sent() > before, 'the target is told again');

  // A snapshot is loaded at once, and brings a target of its own.
  const beforeSnapshot = sent();
  qemu.emit('STOP');
  qemu.emit('RESUME');
  await soon(() => sent() > beforeSnapshot, 'the target is told again');
  qemu.emit('SUSPEND');
  await soon(() => show().state === 'stopped', 'its guest sleeps');
  qemu.emit('WAKEUP');
  await soon(() => show().state === 'running', 'its guest wakes');

  qemu.driverRuns = false;
  qemu.balloonBytes = 250 * MIB;
  const asked = (): number => qemu.commands.filter((one) => one === 'query-balloon').length;
  const askedBefore = asked();
  qemu.emit('RESET', { guest: true, reason: 'guest-reset' });
  await soon(() => show().state === 'connected', 'it boots');
  t.match(show().balloon, { actualBytes: 0, targetBytes: 256 * MIB }, 'whatever QEMU says');
  await soon(() => asked() > askedBefore, 'QEMU is asked what it had then');
  // It tells of that only now, since it tells of a size once a second at most.
  qemu.inflate(250 * MIB);
  const looks = qemu.commands.length;
  await soon(() => qemu.commands.length > looks + 1, 'QEMU is looked at');
  t.match(show(), { state: 'connected', balloon: { actualBytes: 0 }, stats: null });
  qemu.driverRuns = true;
  qemu.statsAt++;
  await soon(() => show().state === 'running', 'its driver runs again');
  qemu.inflate(200 * MIB);
  qemu.inflate(256 * MIB);
  await soon(() => show().balloon.actualBytes === 256 * MIB, 'and moves to the target');

  qemu.hasBalloon = false;
  qemu.emit('DEVICE_DELETED', { device: 'balloon0', path: '/machine/peripheral/balloon0' });
  await soon(() => fleet.size === 0, 'there is no balloon any more');
  t.match(told('vm-disconnected'), [{ message: /unplugged/ }]);
  await soon(() => told('adopt-failed').length === 1, 'none is there at the next look');
  t.match(told('adopt-failed'), [{ message: /QEMU has no balloon of its own/ }]);
  qemu.hasBalloon = true;
  await soon(() => fleet.size === 1, 'one is plugged in');
});

void t.test('a driver is known by what it does', async (t) => {
  const { fleet, folder, show } = adopting(t);
  const moving = await QemuModel.start(t, join(folder, 'a'), { driverRuns: false, statsAt: 0 });
  await fleet.control.changeAdopted({ path: moving.path, adopted: true });
  t.equal(show().state, 'connected');
  moving.inflate(64 * MIB);
  await soon(() => show().state === 'running', 'a driver that moves pages runs');
  await fleet.control.changeAdopted({ path: moving.path, adopted: false });
  await soon(() => fleet.size === 0, 'it is released');
  moving.balloonBytes = 0;
  await fleet.control.changeAdopted({ path: moving.path, adopted: true });
  t.equal(show().state, 'connected');
  moving.statsAt = 1_700_000_000;
  await soon(() => show().state === 'running', 'a driver that sends statistics runs');
});

void t.test('what this kind cannot do is said', async (t) => {
  const { fleet, folder, show } = adopting(t, false, { vm: [{ match: '*', inhibit: 'backups' }] });
  const qemu = await QemuModel.start(t, join(folder, 'a'));
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  await t.rejects(fleet.control.setInhibited('web', 'mine'), {
    name: 'RefusedError',
    message: /^web has QEMU's own balloon, whose pages QEMU discards by itself: set a balloon of 0/,
  });
  t.equal(show().inhibited, null);
  t.match(show().orders, [
    { order: 'inhibit', says: /"backups"\), which does not hold, since QEMU discards/ },
  ]);
  await t.rejects(fleet.control.setTarget('web', { cacheLimitBytes: MIB }), {
    message: /no page cache balloon/,
  });
});

for (const globs of [false, true])
  void t.test(
    `a socket serves one client: the daemon waits in line, says so, and takes its turn${globs ? ', beside a pattern' : ''}`,
    async (t) => {
      const { fleet, folder, told } = adopting(t, globs);
      const other = adopting(t);
      const qemu = await QemuModel.start(t, join(folder, 'a'));
      await other.fleet.control.changeAdopted({ path: qemu.path, adopted: true });
      const waits = await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
      t.match(waits, { vm: null, problem: /serves one client at a time, and the daemon waits in line/ });
      t.equal(told('qmp-waiting').length, 1);
      t.equal(fleet.size, 0);
      await other.fleet.control.changeAdopted({ path: qemu.path, adopted: false });
      await soon(() => fleet.size === 1, 'its turn comes');
      t.same(fleet.control.adopted(), [{ path: qemu.path, by: 'operator', vm: 'web', problem: null }]);
    },
  );

void t.test(
  'of the sockets of a pattern, an operator releases one, over restarts, and takes it back',
  async (t) => {
    const { fleet, folder, orders } = adopting(t, true);
    const qemu = await QemuModel.start(t, join(folder, 'web.qmp'));
    await soon(() => fleet.size === 1, 'it is found');
    const { path } = qemu;
    await fleet.control.changeAdopted({ path, adopted: true });
    t.match(await fleet.control.changeAdopted({ path, adopted: false }), { vm: 'web' });
    await soon(() => qemu.clients === 0, 'QEMU is let go of');
    fleet.configure({ qmp: [{ path: join(folder, '*.qmp') }] }, []);
    t.same(fleet.control.names(), [], 'it is left alone');
    const released = { path, by: 'operator', vm: null };
    t.match(
      fleet.control.adopted().find((one) => one.path === path),
      { ...released, problem: `an operator released ${path}: run balloonctl adopt ${path}` },
    );
    t.match(await fleet.control.changeAdopted({ path, adopted: false }), released, 'again');
    const listed = (): unknown[] => fleet.control.orders().map(({ vm, orders: [one] }) => [vm, one?.undo]);
    t.same(listed(), [[path, `balloonctl adopt ${path}`]]);
    t.match(readBook(orders.book.text()), { document: { released: [{ name: path }] } }, 'it is kept');
    t.match(await fleet.control.changeAdopted({ path, adopted: true }), { vm: 'web', by: 'configuration' });
    t.same(listed(), []);
    await fleet.control.changeAdopted({ path, adopted: false });
    await fleet.control.takeBackOrders(path);
    await soon(() => fleet.size === 1, 'it is taken back as other orders are');
    await fleet.control.changeAdopted({ path, adopted: false });
    await qemu.end();
    await t.rejects(fleet.control.changeAdopted({ path, adopted: true }), { message: /cannot be adopted/ });
    t.same(listed(), [], 'a VM that does not run is no longer left alone, either');
    await QemuModel.start(t, path);
    await soon(() => fleet.size === 1, 'it is adopted when it runs');
    fleet.configure({}, []);
    await soon(() => fleet.size === 0, 'the VM is let go of');
  },
);

void t.test('a QEMU that is stopped when it is to be adopted is told as such', async (t) => {
  const { fleet, folder } = adopting(t);
  const path = join(folder, 'a');
  const program = `require('node:net').createServer((socket) => socket.on('error', () => 0)).listen('${path}', () => console.log('listens'))`;
  const qemu = spawn(process.execPath, ['-e', program]);
  t.teardown(() => qemu.kill('SIGKILL'));
  // The socket is there before the program listens.
  await once(qemu.stdout, 'data');
  qemu.kill('SIGSTOP');
  const pid = String(qemu.pid);
  t.match(await fleet.control.changeAdopted({ path, adopted: true }), {
    vm: null,
    problem: new RegExp(`pid ${pid}\\) is stopped by a signal .*: let it go on \\(kill -CONT ${pid},`),
  });
});

void t.test('the sockets of the daemon itself are no VMs, by whichever name', async (t) => {
  const own: string[] = [];
  const { fleet, folder, told } = adopting(t, true, {}, undefined, own);
  own.push(join(folder, 'control.qmp'), join(folder, 'vhost.qmp'));
  for (const path of own) {
    const fd = listenUnix(path, 0o600);
    t.teardown(() => closeFd(fd));
  }
  const link = join(folder, 'link.qmp');
  symlinkSync(own[0] ?? '', link);
  await QemuModel.start(t, join(folder, 'web.qmp'));
  for (const path of [...own, link]) {
    await t.rejects(fleet.control.changeAdopted({ path, adopted: true }), {
      message: /is a socket of the daemon itself: give the path of a QMP socket of QEMU/,
    });
  }
  await soon(() => fleet.size === 1, 'the VM beside them is found');
  t.match(fleet.control.adopted(), [{ vm: 'web' }]);
  t.same([...told('qmp-waiting'), ...told('adopt-failed')], []);
});

void t.test('two sockets of one QEMU are one VM', async (t) => {
  const { fleet, folder } = adopting(t);
  const [a, b] = [await QemuModel.start(t, join(folder, 'a')), await QemuModel.start(t, join(folder, 'b'))];
  await fleet.control.changeAdopted({ path: a.path, adopted: true });
  await t.rejects(fleet.control.changeAdopted({ path: b.path, adopted: true }), {
    message: /is web, which has a balloon that the daemon moves already/,
  });
  t.equal(fleet.control.adopted().length, 1);
});

void t.test(
  'sockets are found by their pattern as they come, and let go of when it is taken out',
  async (t) => {
    const { fleet, folder, show } = adopting(t, true);
    const qemu = await QemuModel.start(t, join(folder, 'web.qmp'));
    await QemuModel.start(t, join(folder, 'other.sock'));
    await soon(() => fleet.size === 1, 'it is found');
    t.match(fleet.control.adopted(), [{ path: qemu.path, by: 'configuration', vm: 'web' }]);
    fleet.configure(
      { qmp: [{ path: join(folder, '*.qmp') }], vm: [{ match: 'web', 'stats-interval': 7 }] },
      [],
    );
    t.equal(show().statsIntervalSeconds, 7);
    fleet.configure({}, []);
    await soon(() => fleet.size === 0 && qemu.clients === 0, 'the VM is let go of');
  },
);

void t.test('a pattern finds sockets in any folder, and nothing else', (t) => {
  const folder = socketFolder(t);
  for (const name of ['a', 'b', '.c']) mkdirSync(join(folder, name));
  for (const name of ['a/1.qmp', 'b/2.qmp', 'b/2x.qmp', 'b/.3.qmp', '.c/4.qmp'])
    closeFd(listenUnix(join(folder, name)));
  writeFileSync(join(folder, 'a/5.qmp'), '');
  t.same(socketsAt(join(folder, '*', '?.qmp')), [join(folder, 'a/1.qmp'), join(folder, 'b/2.qmp')]);
  t.same(socketsAt(join(folder, 'b', '2*')), [join(folder, 'b/2.qmp'), join(folder, 'b/2x.qmp')]);
  t.same(socketsAt(join(folder, 'a/1.qmp')), [join(folder, 'a/1.qmp')]);
  t.same(socketsAt(join(folder, 'none', '*')), []);
  t.end();
});

const REFUSED: readonly [name: string, change: Partial<QemuModel>, says: RegExp][] = [
  [
    'a QEMU without a balloon',
    { hasBalloon: false },
    /QEMU has no balloon of its own: add -device virtio-balloon/,
  ],
];

for (const [name, change, says] of REFUSED) {
  void t.test(`${name} is refused, and nothing of it is kept`, async (t) => {
    const { fleet, folder, orders } = adopting(t);
    const qemu = await QemuModel.start(t, join(folder, 'a'), change);
    await t.rejects(fleet.control.changeAdopted({ path: qemu.path, adopted: true }), { message: says });
    t.same([fleet.control.adopted(), orders.book.adopted, fleet.size], [[], [], 0]);
    await soon(() => qemu.clients === 0, 'nobody is connected');
  });
}

void t.test('a path where nothing is, or something else', async (t) => {
  const { fleet, folder } = adopting(t);
  const adopt = (path: string): Promise<unknown> => fleet.control.changeAdopted({ path, adopted: true });
  await t.rejects(adopt(join(folder, 'none')), { message: /nothing is there: start QEMU/ });
  await t.rejects(adopt('relative'), { message: /is relative/ });
  await t.rejects(adopt(folder), { message: /no socket is there: give the path of a QMP socket/ });
  await t.rejects(fleet.control.changeAdopted({ path: '/nowhere', adopted: false }), {
    message: /no VM is adopted/,
  });
});

void t.test('a peer that greets and then says nothing is told of as such, once', async (t) => {
  const { fleet, folder, told } = adopting(t);
  const qemu = await QemuModel.start(t, join(folder, 'a'));
  qemu.silent.add('qmp_capabilities');
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true }).catch(() => undefined);
  const greetings = (): number => qemu.commands.filter((one) => one === 'qmp_capabilities').length;
  await soon(() => greetings() === 3, 'the daemon tries again');
  t.match(told('qmp-waiting'), [{ message: /QEMU greets at .* and takes no command/ }]);
  t.match(told('adopt-failed'), [{ message: /does not answer qmp_capabilities/ }]);
});

void t.test('an operator adopts for good: the next daemon adopts again', async (t) => {
  const { fleet, folder, orders } = adopting(t);
  const qemu = await QemuModel.start(t, join(folder, 'a'));
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  t.same(orders.book.adopted, [qemu.path]);
  await fleet.leave();
  const next = adopting(t, false, {}, orders);
  await soon(() => next.fleet.size === 1, 'it is there again');
  await next.fleet.control.changeAdopted({ path: qemu.path, adopted: false });
  t.same(orders.book.adopted, []);
});

void t.test(
  'a QEMU that does not answer, refuses, or sends rubbish: that VM alone, and one event',
  async (t) => {
    const { fleet, folder, show, told } = adopting(t, true);
    const good = await QemuModel.start(t, join(folder, 'good.qmp'), { name: 'good' });
    await soon(() => fleet.size === 1, 'the other one is there');
    // Of one process, both models would be one VM.
    t.equal(good.clients, 1);
    good.silent.add('balloon');
    good.write('{"return": "half of a mess');
    good.write('x'.repeat(2 ** 21));
    await soon(() => told('qmp-failed').length === 1, 'it is told');
    t.match(told('qmp-failed'), [{ vm: 'good', message: /more than 1048576 bytes.*: look for the program/ }]);
    await soon(() => told('vm-connected').length === 2, 'QEMU is connected to again');
    t.equal(show('good').state, 'running');
    good.emit('BALLOON_CHANGE', { actual: 'much' });
    await soon(() => told('qmp-failed').length === 2, 'a size that cannot be is told');
    good.emit('BALLOON_CHANGE', { actual: -5 });
    good.emit('BALLOON_CHANGE', { actual: 10 * good.ramBytes });
    await soon(() => good.commands.includes('query-balloon'), 'the VM is there');
    t.equal(show('good').balloon.actualBytes, 0);
    t.equal(told('qmp-failed').length, 2, 'once for each reason');
  },
);

void t.test('a QEMU that hung and goes on, and a connection that was lost: no false verdict', async (t) => {
  const { fleet, folder, show, told } = adopting(t);
  const qemu = await QemuModel.start(t, join(folder, 'a'), { follows: false });
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  await fleet.control.setStatsInterval('web', 1);
  await soon(() => show().stats !== null, 'it works');
  for (const command of ['balloon', 'query-balloon', 'qom-get', 'qom-set']) qemu.silent.add(command);
  await fleet.control.setTarget('web', { balloonBytes: 64 * MIB });
  await soon(() => show().diagnosis?.code === 'qmp-unanswered', 'it hangs');
  await soon(() => told('qmp-failed').length > 0, 'it is said');
  const sent = (): number => qemu.commands.filter((one) => one === 'balloon').length;
  const before = sent();
  qemu.silent.clear();
  await soon(() => sent() > before, 'the target is told again');
  await soon(() => show().diagnosis?.code !== 'qmp-unanswered', 'it goes on');
  t.equal(show().verdict, null, 'the guest has its time from now on');
  qemu.drop();
  await soon(() => fleet.size === 0, 'the connection is lost');
  await soon(() => fleet.size === 1, 'and made again');
  t.equal(show().verdict, null);
  await soon(() => sent() > before + 1, 'the target holds for the VM');
});

void t.test(
  'another program that moves a balloon which was at its target is told within seconds',
  async (t) => {
    const { fleet, folder, show } = adopting(t);
    const qemu = await QemuModel.start(t, join(folder, 'a'));
    await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
    const begun = performance.now();
    await fleet.control.setTarget('web', { balloonBytes: 256 * MIB });
    await soon(() => show().balloon.actualBytes === 256 * MIB, 'it is reached');
    await sleep(2500);
    qemu.follows = false;
    qemu.inflate(300 * MIB);
    await soon(() => show().balloon.actualBytes === 300 * MIB, 'it moves');
    t.equal(show().verdict, null, 'it may come back by itself');
    await sleep(3000);
    t.match(show().diagnosis, {
      code: 'moved-by-other',
      text: /to 300 MiB, away from the target of 256 MiB/,
    });
    // A machine that is busy says nothing here.
    if (performance.now() - begun > 10_000) t.comment('so late that the test shows nothing');
    await fleet.control.setTarget('web', { balloonBytes: 200 * MIB });
    t.equal(show().verdict, null, 'an operator sets the target again');
  },
);
