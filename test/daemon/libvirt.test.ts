// Domains of a libvirt that is modelled: they are found, followed, ordered and let go of, and whatever goes wrong is said once.
// test/e2e/libvirt-domains.check.ts has a real libvirt.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { DaemonEvent, VmView } from '../../protocol/control/schema.js';
import { VmFleet } from '../../src/daemon/fleet.js';
import { OrderFiles } from '../../src/daemon/order-files.js';
import { EventLog } from '../../src/ops/event-log.js';
import { wallNow } from '../../src/os/clock.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { readBook } from '../../src/vm/order-book.js';
import { HostTree } from '../support/host-tree.js';
import { LibvirtModel, type DomainModel } from '../support/libvirt-model.js';
import { MIB, QemuModel, socketFolder, soon } from '../support/qemu-model.js';

interface Following {
  readonly libvirt: LibvirtModel;
  readonly fleet: VmFleet;
  readonly tree: HostTree;
  readonly orders: OrderFiles;
  /** A domain that runs, with a process of that number. */
  readonly run: (name: string, pid: number, change?: Partial<DomainModel>) => DomainModel;
  readonly show: (name: string) => VmView;
  readonly told: (event: string) => DaemonEvent[];
}

function ignore(): void {
  return;
}

async function following(t: Test, domains?: string[], bus?: string): Promise<Following> {
  const path = join(socketFolder(t), 'bus');
  const libvirt = await LibvirtModel.start(t, path);
  const tree = new HostTree(t);
  tree.write('proc/meminfo', 'MemTotal: 4194304 kB\nMemAvailable: 4194304 kB\n');
  const log = new EventLog({ debug: ignore, info: ignore, warn: ignore, error: ignore });
  const events: DaemonEvent[] = [];
  log.subscribe((event) => events.push(event));
  const orders = new OrderFiles(null, null);
  const config = { libvirt: { bus: bus ?? path, ...(domains !== undefined && { domains }) } };
  const fleet = new VmFleet(config, log, NO_KEEPER, { paths: tree.paths, orders });
  t.teardown(async () => {
    await fleet.leave();
    fleet.close();
  });
  return {
    libvirt,
    fleet,
    tree,
    orders,
    run: (name, pid, change) => {
      const domain = libvirt.domain(name, change);
      domainProcess(tree, pid, domain);
      return domain;
    },
    show: (name) => {
      const view = fleet.control.find(name);
      if (view === undefined) throw new Error(`no VM ${name}: ${fleet.control.names().join()}`);
      return view;
    },
    told: (name) => events.filter(({ event }) => event === name),
  };
}

function domainProcess(tree: HostTree, pid: number, { name, uuid }: DomainModel): void {
  tree.process(pid, `/machine.slice/machine-qemu\\x2d1\\x2d${name}.scope`);
  const words = ['/usr/bin/qemu-system-x86_64', '-name', `guest=${name},debug-threads=on`, '-uuid', uuid];
  tree.write(`proc/${pid}/cmdline`, [...words, ''].join('\0'));
}

void t.test('domains are found, shown, ordered, followed and let go of', async (t) => {
  const { libvirt, fleet, run, show, told } = await following(t);
  const web = run('web', 4001, { period: 60 });
  run('db', 4002, { balloonBytes: 256 * MIB });
  fleet.startPolicy();
  await soon(() => fleet.size === 2, 'both are found');
  t.match(told('libvirt-found'), [{ message: 'libvirt 11.3.0 answers; 2 domains run' }]);
  t.match(show('web'), {
    pid: 4001,
    kind: 'libvirt',
    socket: null,
    state: 'running',
    ramBytes: 1024 * MIB,
    balloon: { targetBytes: 0, actualBytes: 0, discardedBytesTotal: null },
    policy: { mode: 'observe' },
    verdict: null,
  });
  t.match(show('db').balloon, { targetBytes: 256 * MIB, actualBytes: 256 * MIB }, 'as it was found');
  t.match(
    fleet.control.adopted().map(({ path, vm, problem }) => [path, vm, problem]),
    [
      ['libvirt:web', 'web', null],
      ['libvirt:db', 'db', null],
    ],
  );
  await soon(() => web.period === 10, 'the guest is asked more often');
  await soon(() => show('web').stats !== null, 'statistics come');
  t.match(show('web').stats, { VIRTIO_BALLOON_S_AVAIL: 600 * MIB });
  await fleet.control.setTarget('web', { memoryBytes: 512 * MIB });
  await soon(() => told('target-reached').length === 1, 'it is reached');
  t.ok(libvirt.calls.includes('SetMemory 524288 1'), 'live, and not in the configuration of the domain');
  t.match(show('web').balloon, { targetBytes: 512 * MIB, actualBytes: 512 * MIB });
  await t.rejects(fleet.control.setInhibited('web', 'mine'), { message: /QEMU discards by itself/ });
  await fleet.leave();
  t.equal(web.period, 60, 'the interval is put back');
  t.equal(fleet.size, 0);
  t.same(told('libvirt-failed'), []);
});

void t.test('a domain that begins, is paused, reset, saved and migrated away', async (t) => {
  const { libvirt, fleet, tree, run, show, told } = await following(t);
  fleet.startPolicy();
  await soon(() => told('libvirt-found').length === 1, 'libvirt answers');
  const web = run('web', 4001);
  libvirt.lives(web, 2);
  await soon(() => fleet.size === 1, 'it began');
  await fleet.control.setTarget('web', { balloonBytes: 128 * MIB });
  await soon(() => show('web').balloon.actualBytes === 128 * MIB, 'it is reached');
  libvirt.lives(web, 3);
  await soon(() => show('web').state === 'stopped', 'it is paused');
  libvirt.lives(web, 4);
  await soon(() => show('web').state === 'running', 'it goes on');
  libvirt.lives(web, 7);
  await soon(() => show('web').state === 'stopped', 'its guest sleeps');
  libvirt.lives(web, 2, 4);
  await soon(() => show('web').state === 'running', 'its guest wakes');
  t.equal(fleet.size, 1, 'as the VM that it was');
  libvirt.reboot(web);
  await soon(() => show('web').state === 'connected', 'its driver is gone');
  t.equal(show('web').balloon.actualBytes, 0);
  libvirt.inflate(web, 128 * MIB);
  await soon(() => show('web').state === 'running', 'the next driver runs');
  libvirt.lives(web, 5, 4);
  await soon(() => fleet.size === 0, 'it is saved');
  rmSync(join(tree.folder, 'proc/4001'), { recursive: true });
  libvirt.lives(run('web', 4003), 2);
  await soon(() => fleet.size === 1, 'it is back');
  await soon(() => show('web').balloon.actualBytes === 128 * MIB, 'its order holds again');
  libvirt.lives(web, 5, 3);
  await soon(() => fleet.size === 0, 'it is migrated');
  t.match(
    told('vm-disconnected').map(({ message }) => message),
    ['the domain was saved', 'the domain was migrated to another host'],
  );
  libvirt.lives(run('renamed', 4004), 2);
  await soon(() => fleet.size === 1, 'under another name');
  t.match(show('renamed').orders, [], 'orders belong to a name');
  t.same([told('adopt-failed'), told('libvirt-failed')], [[], []]);
});

void t.test('only domains that the configuration names', async (t) => {
  const { libvirt, fleet, run } = await following(t, ['web-*']);
  run('web-1', 4001);
  run('db-1', 4002);
  fleet.startPolicy();
  await soon(() => fleet.size === 1, 'one is found');
  t.same(fleet.control.names(), ['web-1']);
  t.match(fleet.control.adopted(), [{ path: 'libvirt:web-1' }], 'the other is not to be adopted');
  fleet.configure({ libvirt: { bus: libvirt.path, domains: ['db-*'] } }, []);
  await soon(() => fleet.control.names().join() === 'db-1', 'and then the other');
  fleet.configure({}, []);
  await soon(() => fleet.size === 0, 'and then none');
});

void t.test('domains that cannot be adopted: one line each, and the others go on', async (t) => {
  const { fleet, libvirt, run, tree, told } = await following(t);
  run('good', 4001);
  run('none', 4002, { balloon: 'none' });
  run('plugs', 4003, { devices: "<memory model='virtio-mem'><target/></memory>" });
  libvirt.domain('away');
  libvirt.domain('odd', { devices: '<' });
  domainProcess(tree, 4004, run('two', 4005));
  domainProcess(tree, 4006, run('noted', 4007));
  tree.write('libvirt/noted.pid', '4007\n');
  fleet.startPolicy();
  await soon(() => told('adopt-failed').length === 5 && fleet.size === 2, 'the others are said');
  t.same([...fleet.control.names()].sort(), ['good', 'noted']);
  t.equal(fleet.control.find('noted')?.pid, 4007, "by libvirt's own file");
  const nobody =
    'no process of this host is known to be it: run the daemon in the PID namespace of the host, as root or with CAP_SYS_PTRACE';
  t.match(
    Object.fromEntries(
      told('adopt-failed').map(({ message }) => message.split(' cannot be adopted, since ')),
    ),
    {
      'the domain away': nobody,
      'the domain none':
        "it has no balloon of QEMU: give the domain <memballoon model='virtio'/>, or balloond's own device with balloonctl libvirt enable",
      'the domain plugs':
        'it has memory of virtio-mem: use a QMP socket of the VM instead, since QEMU tells the two sizes apart',
      'the domain two': nobody,
      'the domain /org/libvirt/QEMU/domain/_0c91342d_9084_4cbb_8c6b_odd000000000':
        /^libvirt describes it in words of which it cannot be read from its letter \d+ on: see the log of libvirtd/,
    },
  );
});

void t.test('a domain whose QEMU hangs holds up no other one, and is asked once', async (t) => {
  const { libvirt, fleet, run, show, told } = await following(t);
  const [hung] = [run('hung', 4001), run('good', 4002)];
  fleet.startPolicy();
  await soon(() => fleet.size === 2, 'both are found');
  await soon(() => hung.period === 10 && show('hung').stats !== null, 'it works at first');
  hung.answers = false;
  const before = libvirt.calls.length;
  const ordered = fleet.control.setTarget('hung', { balloonBytes: 64 * MIB });
  await fleet.control.setTarget('good', { balloonBytes: 64 * MIB });
  await soon(() => show('good').balloon.actualBytes === 64 * MIB, 'the other one moves');
  await ordered;
  for (const bytes of [65, 66, 67]) await fleet.control.setTarget('hung', { balloonBytes: bytes * MIB });
  await soon(() => told('qmp-failed').length === 1, 'it is said');
  t.match(told('qmp-failed'), [{ vm: 'hung', message: /libvirt does not answer SetMemory within 10 s/ }]);
  t.equal(show('hung').diagnosis?.code, 'qmp-unanswered');
  const toHung = libvirt.calls.slice(before).filter((call) => call.startsWith('SetMemory 9'));
  t.equal(toHung.length, 2, 'one call to each domain');
});

void t.test('no bus, no libvirt-dbus, no libvirtd, and libvirtd comes back', async (t) => {
  const nowhere = await following(t, undefined, join(socketFolder(t), 'none'));
  nowhere.fleet.startPolicy();
  await soon(() => nowhere.told('libvirt-failed').length === 1, 'it is said');
  t.match(nowhere.told('libvirt-failed'), [
    { message: /since there is no bus \(bus .*none\): start the bus/ },
  ]);
  t.match(await nowhere.fleet.control.changeAdopted({ path: 'libvirt:web', adopted: true }), {
    vm: null,
    problem: /^the daemon cannot look at the domains of libvirt, since /,
  });
  t.match(nowhere.fleet.problems, [
    { part: 'libvirt', text: /since there is no bus/, remedy: /^start the bus/ },
  ]);
  nowhere.fleet.configure({}, []);
  t.same(nowhere.fleet.problems, [], 'nobody wants libvirt');

  const { libvirt, fleet, run, show, told } = await following(t);
  run('web', 4001);
  libvirt.broken = ['org.freedesktop.DBus.Error.ServiceUnknown', 'The name is not activatable'];
  fleet.startPolicy();
  await soon(() => told('libvirt-failed').length === 1, 'it is said');
  t.match(told('libvirt-failed'), [{ message: /not activatable .*: run `apt install libvirt-dbus`$/ }]);
  libvirt.broken = null;
  await soon(() => fleet.size === 1, 'it is found');
  libvirt.broken = ['org.libvirt.Error', 'Failed to connect socket'];
  libvirt.signal('/org/freedesktop/DBus', 'org.freedesktop.DBus', 'NameOwnerChanged', 'sss', [
    'org.libvirt',
    ':1.3',
    '',
  ]);
  await soon(() => told('libvirt-failed').length === 2, 'libvirtd is away');
  t.match(fleet.problems, [{ part: 'libvirt', remedy: /^start libvirtd/ }]);
  t.match(told('libvirt-failed')[1], { message: /Failed to connect socket .*: start libvirtd/ });
  t.equal(show('web').state, 'running', 'VMs go on');
  libvirt.broken = null;
  libvirt.signal('/org/freedesktop/DBus', 'org.freedesktop.DBus', 'NameOwnerChanged', 'sss', [
    'org.libvirt',
    '',
    ':1.4',
  ]);
  await soon(() => told('libvirt-found').length === 2, 'libvirtd is back');
  t.same(fleet.problems, []);
  await fleet.control.setTarget('web', { balloonBytes: 64 * MIB });
  await soon(() => show('web').balloon.actualBytes === 64 * MIB, 'the domain is moved as before');
});

void t.test('a bus that sends rubbish, or ends: its VMs leave, and come again', async (t) => {
  const { libvirt, fleet, run, told } = await following(t);
  run('web', 4001);
  fleet.startPolicy();
  await soon(() => fleet.size === 1, 'it is found');
  libvirt.write(new TextEncoder().encode('this is no message of D-Bus'));
  await soon(() => fleet.size === 0, 'its VM leaves');
  t.match(told('libvirt-failed'), [{ message: /the peer sends something else than messages of D-Bus/ }]);
  t.match(told('vm-disconnected'), [{ message: /the way to libvirt ended: the peer sends/ }]);
  await soon(() => fleet.size === 1, 'and comes again');
});

void t.test(
  'while libvirtd is away each domain says so at once, and nothing false once it is back',
  async (t) => {
    const { libvirt, fleet, run, show, told } = await following(t);
    const web = run('web', 4001);
    run('db', 4002);
    fleet.startPolicy();
    await soon(
      () => fleet.size === 2 && show('web').stats !== null && show('db').stats !== null,
      'both work',
    );
    await fleet.control.setTarget('db', { balloonBytes: 32 * MIB });
    await soon(() => show('db').balloon.actualBytes === 32 * MIB, 'one is moved');
    libvirt.broken = ['org.libvirt.Error', "Failed to connect socket to '/run/libvirt/libvirt-sock'"];
    await fleet.control.setTarget('web', { balloonBytes: 64 * MIB });
    const codes = (): unknown[] => ['web', 'db'].map((name) => show(name).diagnosis?.code ?? null);
    await soon(() => codes().join() === 'libvirt-away,libvirt-away', 'both say so');
    t.match(show('db').diagnosis, {
      text: /^libvirt is away, and the balloon stays as it is \(Failed to connect socket/,
      remedy: 'start libvirtd (systemctl start libvirtd.socket)',
    });
    // For longer than a guest has to answer a target.
    await sleep(11_000);
    t.same(codes(), ['libvirt-away', 'libvirt-away']);
    t.same(told('qmp-failed'), [], 'one cause is told once');
    t.equal(told('libvirt-failed').length, 1);
    web.follows = false;
    const before = libvirt.calls.length;
    libvirt.broken = null;
    await soon(() => codes().join() === ',', 'it is back');
    await soon(() => libvirt.calls.slice(before).includes('SetMemory 983040 1'), 'the target is told again');
    await sleep(500);
    t.same(codes(), [null, null], 'the guest has its time from now on');
    libvirt.inflate(web, 64 * MIB);
    await soon(() => show('web').balloon.actualBytes === 64 * MIB, 'it is reached');
    t.equal(told('libvirt-found').length, 2);
    t.same([...told('adopt-failed'), ...told('qmp-failed')], []);
  },
);

void t.test('a call that was under way as libvirtd was restarted is made again', async (t) => {
  const { libvirt, fleet, run, show, told } = await following(t);
  run('web', 4001);
  fleet.startPolicy();
  await soon(() => fleet.size === 1 && show('web').stats !== null, 'it works');
  libvirt.breaks('SetMemory', ['org.libvirt.Error', 'Cannot recv data: Connection reset by peer']);
  await fleet.control.setTarget('web', { balloonBytes: 64 * MIB });
  await soon(() => show('web').balloon.actualBytes === 64 * MIB, 'it is moved');
  t.equal(show('web').verdict, null);
  t.same(told('qmp-failed'), []);
});

void t.test('a domain that ends while the daemon asks for it is no trouble of anybody', async (t) => {
  const { libvirt, fleet, run, show, told } = await following(t);
  const web = run('web', 4001);
  fleet.startPolicy();
  await soon(() => fleet.size === 1 && show('web').stats !== null, 'it works');
  const path = [...libvirt.domains].find(([, domain]) => domain === web)?.[0] ?? '';
  libvirt.domains.delete(path);
  libvirt.breaks('SetMemory', [
    'org.libvirt.Error',
    'Requested operation is not valid: domain is not running',
  ]);
  await fleet.control.setTarget('web', { balloonBytes: 64 * MIB });
  await soon(() => fleet.size === 0, 'it leaves');
  const described = (): number => libvirt.calls.filter((call) => call.startsWith('GetXMLDesc')).length;
  const before = described();
  libvirt.domain('short');
  await soon(() => described() > before, 'one that has no process any more is looked at');
  libvirt.domains.clear();
  await sleep(1500);
  t.same([...told('qmp-failed'), ...told('adopt-failed')], []);
});

void t.test('an operator releases one domain, over restarts, and takes it back', async (t) => {
  const { libvirt, fleet, run, show, orders } = await following(t);
  const web = run('web', 4001, { period: 60 });
  run('db', 4002);
  fleet.startPolicy();
  await soon(() => fleet.size === 2 && web.period === 10, 'both are found');
  await fleet.control.setTarget('web', { balloonBytes: 64 * MIB });
  const path = 'libvirt:web';
  t.match(await fleet.control.changeAdopted({ path, adopted: false }), { path, vm: 'web' });
  t.same(fleet.control.names(), ['db']);
  t.equal(web.period, 60, 'the interval is put back');
  libvirt.lives(web, 2);
  fleet.configure({ libvirt: { bus: libvirt.path } }, []);
  await soon(() => libvirt.calls.filter((call) => call.startsWith('GetXMLDesc')).length > 2, 'a look');
  t.same(fleet.control.names(), ['db']);
  t.match(
    fleet.control.adopted().find((one) => one.path === path),
    {
      by: 'operator',
      vm: null,
      problem: 'an operator released libvirt:web: run balloonctl adopt libvirt:web',
    },
  );
  const listed = (): unknown[] =>
    fleet.control
      .orders()
      .flatMap(({ vm, orders }) => orders.map((one) => [vm, one.order, one.undo]))
      .filter(([, order]) => order === 'released');
  t.same(listed(), [['web', 'released', 'balloonctl adopt libvirt:web']]);
  t.match(readBook(orders.book.text()), { document: { released: [{ name: 'web' }] } }, 'it is kept');

  t.match(await fleet.control.changeAdopted({ path, adopted: true }), { path, vm: 'web', problem: null });
  await soon(() => show('web').balloon.actualBytes === 64 * MIB, 'its other orders hold again');
  t.same(listed(), []);

  orders.book.release('/run/web.qmp', wallNow());
  t.notOk(
    fleet.control.adopted().some((one) => one.path.includes('/run/web.qmp')),
    'no socket is a domain',
  );
  orders.book.release('/run/web.qmp', null);

  await fleet.control.changeAdopted({ path: 'libvirt:off', adopted: false });
  t.match(listed(), [['off', 'released']], 'a domain that does not run');
  libvirt.lives(run('off', 4003), 2);
  await fleet.control.takeBackOrders('off');
  await soon(() => fleet.size === 3, 'it is taken back as other orders are');
  fleet.configure({ libvirt: { bus: libvirt.path, domains: ['db'] } }, []);
  await soon(() => fleet.size === 1, 'one is left');
  for (const adopted of [true, false]) {
    await t.rejects(fleet.control.changeAdopted({ path, adopted }), {
      name: 'RefusedError',
      message: /the configuration does not name the domain web: add it to the domains of \[libvirt\]/,
    });
  }
  fleet.configure({}, []);
  await t.rejects(fleet.control.changeAdopted({ path, adopted: false }), {
    message:
      /no VM is adopted as web, and the configuration has no \[libvirt\]: give the path of the QMP socket/,
  });
});

void t.test('two VMs of one name: each keeps its name and its orders for as long as both live', async (t) => {
  const { libvirt, fleet, tree, run, show, told } = await following(t);
  tree.process(process.pid, '/vms/solo');
  const qemu = await QemuModel.start(t, join(socketFolder(t), 'solo'), { name: 'solo' });
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  const solo = run('solo', 4001);
  fleet.startPolicy();
  await soon(() => fleet.size === 2, 'both are there');
  t.same(fleet.control.names(), ['solo', 'solo-2']);
  await fleet.control.setTarget('solo', { balloonBytes: 64 * MIB });
  await fleet.control.setTarget('solo-2', { balloonBytes: 128 * MIB });
  await soon(() => solo.balloonBytes === 128 * MIB && qemu.balloonBytes === 64 * MIB, 'each has its own');

  await fleet.control.changeAdopted({ path: qemu.path, adopted: false });
  libvirt.write(new TextEncoder().encode('this is no message of D-Bus'));
  await soon(() => fleet.size === 0, 'both are gone');
  await soon(() => fleet.size === 1, 'the domain comes first');
  t.same(fleet.control.names(), ['solo-2'], 'the other one lives, and the name is its own');
  t.match(show('solo-2').balloon, { targetBytes: 128 * MIB });
  t.match(told('name-taken').at(-1), { vm: 'solo-2', message: /another VM of this host is called solo/ });
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  t.match(show('solo').balloon, { targetBytes: 64 * MIB });

  libvirt.lives(solo, 5);
  await soon(() => fleet.size === 1, 'the domain is switched off');
  rmSync(join(tree.folder, 'proc/4001'), { recursive: true });
  libvirt.lives(run('solo', 4002), 2);
  await soon(() => fleet.size === 2, 'and on again');
  t.match(show('solo-2'), { pid: 4002, balloon: { targetBytes: 128 * MIB } }, 'known by its UUID');
  libvirt.lives(solo, 5);
  await soon(() => fleet.size === 1, 'it is switched off again');
  rmSync(join(tree.folder, 'proc/4002'), { recursive: true });
  libvirt.lives(run('solo', 4003, { uuid: '0c91342d-9084-4cbb-8c6b-000000000007' }), 2);
  await soon(() => fleet.size === 2, 'another domain of that name');
  t.match(show('solo-3').orders, [], 'has none of its orders');
});

for (const first of ['socket', 'domain'] as const)
  void t.test(`a QMP socket of a domain's own QEMU, the ${first} first: one VM, and a reason`, async (t) => {
    const { fleet, tree, run, told } = await following(t);
    // The process that made the socket, and then started QEMU with it.
    tree.process(process.pid, '/vms/launcher');
    const uuid = '0C91342D-9084-4cbb-8c6b-00000000000a';
    const qemu = await QemuModel.start(t, join(socketFolder(t), 'web'), { name: 'by-socket', uuid });
    const adopt = (): Promise<unknown> => fleet.control.changeAdopted({ path: qemu.path, adopted: true });
    run('web', 4001, { uuid: uuid.toLowerCase() });
    if (first === 'socket') {
      await adopt();
      fleet.startPolicy();
      await soon(() => told('adopt-failed').length === 1, 'the domain is refused');
      const says =
        /^the domain web is by-socket, which has a balloon that the daemon moves already: keep one of .* run balloonctl adopt --release \/.*\/web, then adopt this one again$/;
      t.match(told('adopt-failed'), [{ message: says }]);
      t.match(fleet.control.adopted(), [
        { vm: 'by-socket' },
        { path: 'libvirt:web', vm: null, problem: says },
      ]);
    } else {
      fleet.startPolicy();
      await soon(() => fleet.size === 1, 'the domain is found');
      await t.rejects(adopt(), {
        message:
          /^the VM at .* is web, which has a balloon that the daemon moves already: keep one of .* run balloonctl adopt --release libvirt:web, then adopt this one again$/,
      });
    }
    t.equal(fleet.size, 1);
  });

void t.test('two QEMUs with one UUID are two VMs', async (t) => {
  const { fleet, tree, run, told } = await following(t);
  const uuid = '0c91342d-9084-4cbb-8c6b-00000000000b';
  tree.process(process.pid, '/vms/copy');
  tree.write(`proc/${process.pid}/cmdline`, ['qemu-system-x86_64', '-uuid', uuid, ''].join('\0'));
  const qemu = await QemuModel.start(t, join(socketFolder(t), 'copy'), { name: 'copy', uuid });
  await fleet.control.changeAdopted({ path: qemu.path, adopted: true });
  tree.write('libvirt/web.pid', '4001\n');
  run('web', 4001, { uuid });
  fleet.startPolicy();
  await soon(() => fleet.size === 2, 'both are there');
  t.same(told('adopt-failed'), []);
});
