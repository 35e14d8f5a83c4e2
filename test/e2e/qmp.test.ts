// QEMU's own balloon in a real QEMU with a real Linux guest, adopted over QMP as docs/adopting.md says: sizes beside the guest's own word.
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { GIB, MIB, startDaemon } from '../support/e2e.js';
import { Guest, type GuestOptions } from '../support/lab/guest.js';

const PROPERTY = { path: '/machine/peripheral/balloon0', property: 'guest-stats-polling-interval' };

interface Old {
  readonly guest: Guest;
  readonly socket: string;
}

/** A guest with QEMU's own balloon and private memory, and a QMP socket in the daemon's folder. */
async function bootOld(
  t: Test,
  daemon: DaemonProcess,
  name: string,
  options: Partial<GuestOptions> = {},
): Promise<Old> {
  const socket = join(daemon.folder, `${name}.qmp`);
  const guest = await Guest.boot({
    name,
    memoryMib: 512,
    builtinBalloon: true,
    share: false,
    extraArgs: ['-qmp', `unix:${socket},server=on,wait=off`],
    ...options,
  });
  t.teardown(() => guest.kill());
  return { guest, socket };
}

void t.test('a VM is adopted while it runs, and guest and daemon agree', async (t) => {
  const daemon = await startDaemon(t);
  const { guest, socket } = await bootOld(t, daemon, 'old-1', { memoryMib: 1024 });
  await guest.waitReady();
  t.match(await daemon.ok('adopt', socket), /^old-1: adopted over QMP \(pid \d+\)\n$/);
  t.match(await daemon.ok('adopt'), /^\S*old-1\.qmp: old-1\n$/, 'it is listed');
  for (const own of [daemon.controlPath, daemon.socketPath])
    t.match(await daemon.ctl('adopt', own), {
      code: 1,
      stderr: /is a socket of the daemon itself: give the path of/,
    });
  const vm = await daemon.until('old-1', ({ stats }) => stats !== null, 'statistics come');
  t.match(vm, { kind: 'qmp', socket, state: 'running', ramBytes: GIB, verdict: null });
  t.match(vm.balloon, { targetBytes: 0, actualBytes: 0, discardedBytesTotal: null });
  const before = await guest.meminfo();
  const fresh = await daemon.stats('old-1');
  const available = (fresh['VIRTIO_BALLOON_S_AVAIL'] ?? 0) - (before['MemAvailable'] ?? 0);
  t.ok(Math.abs(available) < 32 * MIB, `available differs by ${available}`);

  t.match(
    await daemon.ok('set', 'old-1', '--memory', '512M', '--wait'),
    /512 MiB \(the guest keeps 512 MiB\), reached/,
  );
  const after = await guest.meminfo();
  const taken = (before['MemTotal'] ?? 0) - (after['MemTotal'] ?? 0);
  t.equal(taken, GIB / 2, 'by the word of the guest');
  t.same(await guest.qmp('query-balloon'), { actual: GIB / 2 }, 'by the word of QEMU');
  t.equal((await daemon.show('old-1')).balloon.actualBytes, GIB / 2);
  t.match(await daemon.ok('show', 'old-1'), /Over +QMP, at .*old-1\.qmp[^]*QEMU serves the balloon itself/);

  t.match(await daemon.ctl('inhibit', 'old-1'), { code: 1, stderr: /QEMU discards by itself/ });
  const doctor = await daemon.ctl('doctor');
  t.match(doctor.stdout, /old-1: memory: any, since QEMU serves its own balloon/);

  // Paused, and resumed.
  await guest.qmp('stop');
  await daemon.until('old-1', ({ state }) => state === 'stopped', 'it is paused');
  await guest.qmp('cont');
  await daemon.until('old-1', ({ state }) => state === 'running', 'it goes on');

  // Its guest is reset, and its driver takes the balloon to the target again.
  await guest.systemReset();
  await daemon.until(
    'old-1',
    ({ balloon }) => balloon.actualBytes === GIB / 2,
    'the target is reached again',
  );
  t.ok(((await guest.meminfo())['MemTotal'] ?? 0) < GIB / 2, 'by the word of the guest');

  t.equal(await guest.qmp('qom-get', PROPERTY), 10);
  t.match(await daemon.ctl('adopt', '--release', 'old-2'), {
    code: 1,
    stderr: /no VM is adopted as old-2, .*: give the path of the QMP socket of the VM/,
  });
  t.match(await daemon.ok('adopt', '--release', 'old-1'), /^old-1: released; its balloon stays as it is\n$/);
  t.equal(await guest.qmp('qom-get', PROPERTY), 0, 'QEMU asks as before');
  t.same(await guest.qmp('query-balloon'), { actual: GIB / 2 });
  t.same(await daemon.list(), []);
  t.equal(await daemon.ok('adopt'), 'no VM is adopted, and none is to be\n');
});

void t.test('another program that moves the balloon is found out, and not the guest', async (t) => {
  const daemon = await startDaemon(t);
  const { guest, socket } = await bootOld(t, daemon, 'old-4');
  await guest.waitReady();
  await daemon.ok('adopt', socket);
  await daemon.ok('set', 'old-4', '--balloon', '200M', '--wait');
  for (const [mib, guestMib] of [
    [100, 412],
    [300, 212],
  ] as const) {
    await guest.qmp('balloon', { value: guestMib * MIB });
    const { verdict, balloon } = await daemon.until(
      'old-4',
      ({ diagnosis }) => diagnosis?.code === 'moved-by-other',
      'the verdict comes',
    );
    t.equal(balloon.actualBytes, mib * MIB);
    t.match(
      verdict,
      new RegExp(`another program moved the balloon to ${mib} MiB, away from the target of 200 MiB`),
    );
    t.match(verdict, /: end the program that sets the balloon/);
    await daemon.ok('set', 'old-4', '--balloon', '200M', '--wait');
    t.equal((await daemon.show('old-4')).verdict, null);
  }
  // The driver goes, by which it empties the balloon: no other program is to blame.
  t.equal((await guest.sh('rmmod virtio_balloon')).code, 0);
  const { diagnosis } = await daemon.until(
    'old-4',
    (vm) => vm.balloon.actualBytes === 0 && vm.diagnosis !== null,
    'a verdict comes',
  );
  t.match(diagnosis, { code: 'no-statistics' });
});

void t.test('sockets are found by a pattern, and over a restart of the daemon', async (t) => {
  const config = `[[qmp]]
path = "{folder}/*.qmp"
`;
  const daemon = await startDaemon(t, { config, supervise: true });
  const { guest } = await bootOld(t, daemon, 'old-2');
  // Before its driver runs, or after: the guest boots meanwhile.
  await daemon.until('old-2', () => true, 'it is found');
  await daemon.ok('set', 'old-2', '--balloon', '128M');
  await guest.waitReady();
  await daemon.until('old-2', ({ balloon }) => balloon.actualBytes === 128 * MIB, 'the order is kept');
  await daemon.crash();
  const again = await daemon.until('old-2', ({ state }) => state === 'running', 'it is adopted again');
  t.match(again, {
    balloon: { actualBytes: 128 * MIB, targetBytes: 128 * MIB },
    orders: [{ order: 'target' }],
  });
  await guest.quit();
  await eventually(
    async () => (await daemon.list()).length === 0,
    () => 'a VM that ended is gone',
  );
});

void t.test('a socket that is added to a VM that runs', async (t) => {
  const daemon = await startDaemon(t);
  const { guest } = await bootOld(t, daemon, 'old-3', { extraArgs: [] });
  await guest.waitReady();
  const path = join(daemon.folder, 'late.qmp');
  const addr = { type: 'unix', data: { path } };
  const backend = { type: 'socket', data: { addr, server: true, wait: false } };
  await guest.qmp('chardev-add', { id: 'balloond', backend });
  await guest.qmp('object-add', { 'qom-type': 'monitor-qmp', id: 'balloond-qmp', chardev: 'balloond' });
  await daemon.ok('adopt', path);
  await daemon.ok('set', 'old-3', '--balloon', '100M', '--wait');
  t.same(await guest.qmp('query-balloon'), { actual: 412 * MIB });
});
