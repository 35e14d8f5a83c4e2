// Guests that sleep: to disk, where the VM ends and another QEMU goes on with the same guest, and to RAM.
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { DaemonProcess } from '../support/daemon.js';
import { eventually } from '../support/deadline.js';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { temporaryFolder } from '../support/fleet.js';
import { buildCacheModule, loadCacheModule } from '../support/lab/cache-module.js';
import { Guest } from '../support/lab/guest.js';

t.setTimeout(0);

const MEMORY_MIB = 512;
const HELD_MIB = 64;
const RESUMES_MS = 120_000;
const folder = temporaryFolder(t);

const module = await buildCacheModule();
const DRIVERS = {
  "the kernel's own driver": false,
  'the driver of both limits': module === null ? 'Debian has no headers of the guest kernel any more' : false,
};

for (const [driver, skip] of Object.entries(DRIVERS)) {
  void t.test(`to disk, with ${driver}`, { skip }, async (t) => {
    const ours = driver === 'the driver of both limits';
    const image = join(folder, driver);
    writeFileSync(image, '');
    truncateSync(image, MEMORY_MIB * MIB);
    const daemon = await startDaemon(t);
    const options = {
      memoryMib: MEMORY_MIB,
      acpi: true,
      kernelArgs: ours ? ['balloon=off'] : [],
      extraArgs: [
        ...['-drive', `if=none,id=swap,format=raw,cache=unsafe,file=${image}`],
        ...['-device', 'nvme,drive=swap,serial=swap'],
      ],
    };
    const before = await boot(t, daemon, 'web', options);
    if (ours) await loadCacheModule(before, module ?? '');
    await before.hold(HELD_MIB, 1);
    if (ours) await daemon.ok('set', 'web', '--cache-limit', '50M');
    await daemon.ok('set', 'web', '--balloon', '200M', '--wait', '--timeout', '60');
    await before.sh('mkswap /dev/nvme0n1 && swapon /dev/nvme0n1');
    // The guest that goes on answers.
    const sleeps = before.sh('echo shutdown > /sys/power/disk; echo disk > /sys/power/state', RESUMES_MS);
    await t.rejects(sleeps, 'the VM ends');
    t.equal(await before.exitCode, 0);

    const after = await boot(t, daemon, 'web', options);
    t.match(await after.sh('cat /sys/block/nvme0n1/dev > /sys/power/resume; echo a new guest', RESUMES_MS), {
      code: 0,
      output: '',
    });
    await daemon.until(
      'web',
      ({ balloon, cache }) => balloon.actualBytes === 200 * MIB && (!ours || cache?.actualBytes === 50 * MIB),
      'both are as they were',
    );
    const { MemFree = 0 } = await after.meminfo();
    t.ok(MemFree < (MEMORY_MIB - 200 - HELD_MIB) * MIB, `the guest has ${MemFree} bytes free`);
    t.equal(await after.verify(), 0, 'damaged pages');
    t.ok(after.memfdAllocatedBytes() < (MEMORY_MIB - 200) * MIB, 'the host has the rest');
  });
}

const SLEEP_IN_RAM = 'echo mem > /sys/power/state';

/** Linux 6.12 starts anew as it wakes, and 7.x goes on without the agent's port. */
async function sleepInRam(
  t: Test,
  guest: Guest,
  daemon: DaemonProcess,
  meanwhile: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  await daemon.ok('set', 'web', '--balloon', '200M', '--wait', '--timeout', '60');
  const status = async (): Promise<unknown> =>
    ((await guest.qmp('query-status')) as { status?: unknown }).status;
  guest.sh(SLEEP_IN_RAM).catch(() => undefined);
  await eventually(
    async () => (await status()) === 'suspended',
    () => 'the guest sleeps',
  );
  await daemon.until('web', ({ state }) => state === 'stopped', 'its device stops');
  const asleep = await daemon.show('web');
  t.match(asleep, { balloon: { actualBytes: 0, targetBytes: 200 * MIB } });
  t.match(asleep.verdict, /its guest sleeps.*virsh dompmwakeup or system_wakeup/);
  await daemon.ok('set', 'web', '--balloon', '100M');
  await meanwhile();
  await guest.qmp('system_wakeup');
  await daemon.until('web', ({ state }) => state === 'running', 'it wakes');
  await daemon.ok('set', 'web', '--balloon', '100M', '--wait', '--timeout', '120');
  t.match(await daemon.show('web'), { state: 'running', balloon: { actualBytes: 100 * MIB } });
  t.equal(await status(), 'running');
}

void t.test('to RAM', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'web', { memoryMib: MEMORY_MIB, acpi: true });
  await sleepInRam(t, guest, daemon);
});

void t.test("to RAM, with QEMU's own balloon", async (t) => {
  const daemon = await startDaemon(t);
  const socket = join(daemon.folder, 'web.qmp');
  const guest = await Guest.boot({
    name: 'web',
    memoryMib: MEMORY_MIB,
    acpi: true,
    builtinBalloon: true,
    extraArgs: ['-qmp', `unix:${socket},server=on,wait=off`],
  });
  t.teardown(() => guest.kill());
  await guest.waitReady();
  await daemon.ok('adopt', socket);
  await sleepInRam(t, guest, daemon, async () => {
    await guest.qmp('stop');
    await guest.qmp('cont');
    t.same(
      guest.events.map(({ event }) => event).filter((event) => event !== 'BALLOON_CHANGE'),
      ['SUSPEND', 'STOP', 'RESUME'],
    );
    t.match(await daemon.show('web'), { state: 'stopped' }, 'it sleeps on');
  });
});
