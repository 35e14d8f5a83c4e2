// A VM moves to another host without its balloon, as docs/migration.md says, and has it again there: two daemons stand for the hosts.
import { join } from 'node:path';
import t from 'tap';
import { eventually, PATIENCE_MS } from '../support/deadline.js';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { Guest } from '../support/lab/guest.js';
import { MACHINES } from '../support/lab/machines.js';

const NAME = 'mover';
const BALLOON_BYTES = 500 * MIB;
const OPTIONS = { machine: MACHINES.q35, acpi: true, memoryMib: 768 };

interface Way {
  targetBytes: number;
  there: string | null;
  here: string;
}

/** Of the arguments that `qemu-args` printed: those without the device and its chardev, and the device as QMP is told of it. */
function divide(printed: readonly string[]): { rest: string[]; device: Record<string, string | number> } {
  const rest: string[] = [];
  let device: Record<string, string | number> = {};
  for (let at = 0; at < printed.length; at += 2) {
    const [option = '', value = ''] = printed.slice(at, at + 2);
    if (value.startsWith('vhost-user-test-device-pci')) {
      const [driver = '', ...properties] = value.split(',');
      const pairs = properties.map((property) => property.split('='));
      const typed = pairs.map(([key, text = '']) => [key, /^\d+$/.test(text) ? Number(text) : text]);
      device = { driver, ...(Object.fromEntries(typed) as typeof device) };
    } else if (option !== '-chardev') rest.push(option, value);
  }
  return { rest, device };
}

void t.test('evacuate, unplug, migrate, plug, set', async (t) => {
  const here = await startDaemon(t);
  const there = await startDaemon(t);
  const printed = JSON.parse(
    await here.ok(
      ...['qemu-args', '--json', '--hot-plug', '--memory', '768M', '--name', NAME],
      ...['--socket-path', here.socketPath],
    ),
  ) as string[];
  const { rest, device } = divide(printed);
  const guest = await boot(t, here, NAME, { ...OPTIONS, pasted: printed });
  await guest.hold(100, 1);
  await here.ok('set', NAME, '--balloon', `${BALLOON_BYTES}`, '--wait');
  await t.rejects(guest.qmp('migrate', { uri: 'unix:/nowhere' }), /non-migratable/);

  const way = JSON.parse(
    await here.ok('--json', 'evacuate', NAME, '--timeout', `${PATIENCE_MS / 1000}`),
  ) as Way;
  t.same(way, {
    vm: NAME,
    targetBytes: BALLOON_BYTES,
    cacheLimitBytes: null,
    thereCache: null,
    there: `balloonctl set ${NAME} --balloon ${BALLOON_BYTES}`,
    here: `balloonctl orders ${NAME} --take-back`,
  });
  t.equal((await here.show(NAME)).balloon.actualBytes, 0);
  const other = await Guest.boot({ ...OPTIONS, name: NAME, pasted: rest, extraArgs: ['-incoming', 'defer'] });
  t.teardown(() => other.kill());
  let checksMs = 0;
  /** What only this test does takes no part in the time without the balloon. */
  const check = async <T>(work: Promise<T>): Promise<T> => {
    const started = performance.now();
    const result = await work;
    checksMs += performance.now() - started;
    return result;
  };
  const begin = performance.now();
  const laps: string[] = [];
  const lap = (what: string): unknown =>
    laps.push(`${what} ${((performance.now() - begin - checksMs) / 1000).toFixed(1)} s`);
  await guest.qmp('device_del', { id: 'balloon' });
  await eventually(
    async () => (await here.events()).some(({ event, vm }) => event === 'device-unplugged' && vm === NAME),
    () => `the device is unplugged; ${here.log}`,
  );

  lap('unplugged after');
  await guest.migrateTo(other, join(there.folder, 'migration.sock'));
  lap('migrated after');
  await guest.quit();
  t.equal(await check(other.verify(PATIENCE_MS)), 0, 'pages lost on the way');
  await eventually(
    async () => (await here.list()).length === 0,
    () => 'the VM has left',
  );
  await here.ok(...way.here.split(' ').slice(1));
  t.same(JSON.parse(await here.ok('--json', 'orders')), [], 'nothing waits for its return');

  const addr = { type: 'unix', data: { path: there.socketPath } };
  await other.qmp('chardev-add', {
    id: 'balloon',
    backend: { type: 'socket', data: { addr, server: false } },
  });
  await other.qmp('device_add', device);
  await there.until(NAME, ({ state }) => state === 'running', 'the driver runs again');
  lap('plugged in after');
  t.ok(await check(other.eat(BALLOON_BYTES / MIB)), 'the guest has all of its memory');
  const full = other.memfdAllocatedBytes();
  await there.ok(...(way.there ?? '').split(' ').slice(1), '--wait');
  lap(`the balloon of ${BALLOON_BYTES / MIB} MiB stands again after`);
  t.comment(laps.join(', '));
  t.equal((await there.show(NAME)).balloon.actualBytes, BALLOON_BYTES);
  await there.until(
    NAME,
    () => other.memfdAllocatedBytes() < full - BALLOON_BYTES / 2,
    'the new host has the memory back',
  );
  t.equal(await other.verify(PATIENCE_MS), 0, 'pages lost in the end');
  t.equal((await there.show(NAME)).verdict, null);
  for (const { log } of [here, there]) t.notMatch(log, /vm-dropped|frontend-error|driver-error/);
});
