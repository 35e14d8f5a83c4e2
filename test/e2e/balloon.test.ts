// A real Linux guest in a real QEMU, its balloon served by the real daemon, commanded with balloonctl.
import t from 'tap';
import type { DaemonProcess } from '../support/daemon.js';
import { boot, found, GIB, MIB, startDaemon } from '../support/e2e.js';
import { eventually } from '../support/deadline.js';
import { reserveHugePages } from '../support/huge-pages.js';
import type { Guest } from '../support/lab/guest.js';

/** Touching gigabytes takes an emulated processor a while. */
const SLOW_MS = 240_000;

/** What doctor finds of a VM's huge pages, once its memory is known. */
async function hugePages(daemon: DaemonProcess, name: string): Promise<string | undefined> {
  await daemon.until(name, ({ ramBytes }) => ramBytes > 0, 'its memory is known');
  return (await found(daemon, name, 'huge pages'))?.found;
}

void t.test('half of 1 GiB is taken and given back, and host and guest agree', async (t) => {
  // Without reporting, so that what comes back to the host is the balloon's doing.
  const daemon = await startDaemon(t, {
    config: `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ"]
`,
  });
  const guest = await boot(t, daemon, 'web-1', { memoryMib: 1024, device: { numVqs: 3 } });
  t.ok(await guest.eat(850, SLOW_MS));
  const full = guest.memfdAllocatedBytes();
  const running = await daemon.until('web-1', ({ state }) => state === 'running', 'runs');
  t.equal(running.ramBytes, GIB);
  const guestBefore = await guest.meminfo();
  await daemon.ok('set', 'web-1', '--balloon', '512M', '--wait', '--timeout', '120');
  const { balloon } = await daemon.until('web-1', (vm) => vm.balloon.pendingBytes === 0, 'all is discarded');
  t.equal(balloon.actualBytes, GIB / 2);
  const guestAfter = await guest.meminfo();
  const taken = (guestBefore['MemFree'] ?? 0) - (guestAfter['MemFree'] ?? 0);
  t.ok(Math.abs(taken - GIB / 2) < 32 * MIB, `MemFree fell by ${taken}`);
  const fell = full - guest.memfdAllocatedBytes();
  t.ok(fell > 350 * MIB && guest.memfdAllocatedBytes() <= GIB / 2, `the host's blocks fell by ${fell}`);

  await daemon.ok('set', 'web-1', '--memory', '1G', '--wait', '--timeout', '120');
  t.equal((await daemon.show('web-1')).balloon.actualBytes, 0);
  const back = ((await guest.meminfo())['MemFree'] ?? 0) - (guestBefore['MemFree'] ?? 0);
  // Up to an eighth of memory may rest in the processor's own free list, which MemFree leaves out.
  t.ok(back > -(GIB / 8) - 32 * MIB, `MemFree came back to ${back} more than before`);
  const low = guest.memfdAllocatedBytes();
  await guest.hold(650, 1, SLOW_MS);
  const held = guest.memfdAllocatedBytes();
  t.ok(held - low > 100 * MIB, `the host gave ${held - low} again`);
  t.equal(await guest.verify(), 0);
});

void t.test('what the guest holds stays intact before, during and after inflates and deflates', async (t) => {
  const daemon = await startDaemon(t);
  const printed = await daemon.ok(
    ...['qemu-args', '--json', '--memory', '512M', '--name', 'steady', '--socket-path', daemon.socketPath],
  );
  const guest = await boot(t, daemon, 'steady', { pasted: JSON.parse(printed) as string[] });
  // Whether this host allows them is its own.
  t.match(await hugePages(daemon, 'steady'), /^(possible|none, by the policy of this host)/);
  await guest.hold(150, 7);
  for (let round = 0; round < 4; round++) {
    await daemon.ok('set', 'steady', '--balloon', '200M');
    t.equal(await guest.churn(5000, round), 0, 'pages churned while it inflates');
    await daemon.until('steady', ({ balloon }) => balloon.actualBytes === 200 * MIB, 'inflated');
    t.equal(await guest.verify(), 0, 'inflated');
    await daemon.ok('set', 'steady', '--balloon', '10M');
    t.equal(await guest.churn(5000, round + 100), 0, 'pages churned while it deflates');
    await daemon.until('steady', ({ balloon }) => balloon.actualBytes === 10 * MIB, 'deflated');
    t.ok(await guest.eat(100), 'pages that came back are used');
    t.equal(await guest.verify(), 0, 'deflated');
  }
});

void t.test('statistics, on demand and by their names', async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'stats');
  t.match(await hugePages(daemon, 'stats'), /^never: of memory-backend-memfd, 512 MiB are mapped 4 KiB off /);
  await daemon.until('stats', ({ stats }) => stats !== null, 'the primed statistics');
  /** MEMFREE as the statistics and the guest itself have it. Linux takes pages off its free lists while it reports them. */
  const settled = async (): Promise<number> => {
    let memFree = 0;
    let found = '';
    await eventually(
      async () => {
        const stats = JSON.parse(await daemon.ok('--json', 'stats', 'stats', '--refresh')) as Record<
          string,
          number
        >;
        const meminfo = await guest.meminfo();
        t.ok((stats['ageSeconds'] ?? 99) < 5);
        t.equal(stats['VIRTIO_BALLOON_S_MEMTOT'], meminfo['MemTotal']);
        memFree = stats['VIRTIO_BALLOON_S_MEMFREE'] ?? 0;
        found = `MEMFREE is ${memFree}, the guest says ${meminfo['MemFree']}`;
        return Math.abs(memFree - (meminfo['MemFree'] ?? 0)) < 8 * MIB;
      },
      () => found,
    );
    return memFree;
  };
  await guest.hold(100, 1);
  const before = await settled();
  await guest.hold(200, 1);
  await eventually(
    async () => before - (await settled()) > 90 * MIB,
    () => `MEMFREE falls from ${before}`,
  );
});

void t.test('free page reporting gives back what the guest frees', async (t) => {
  const daemon = await startDaemon(t);
  const [plain, zeroed] = await Promise.all([
    boot(t, daemon, 'plain'),
    // It acks VIRTIO_BALLOON_F_PAGE_POISON with a poison_val of 0: what is discarded reads as it expects.
    boot(t, daemon, 'zeroed', { kernelArgs: ['init_on_free=1'] }),
  ]);
  t.ok((await daemon.show('zeroed')).features.includes('VIRTIO_BALLOON_F_PAGE_POISON'));
  const check = async (guest: Guest): Promise<void> => {
    await guest.hold(200, 1);
    const used = guest.memfdAllocatedBytes();
    t.ok(used > 200 * MIB);
    await guest.drop();
    await daemon.until(
      guest.name,
      () => guest.memfdAllocatedBytes() < used - 100 * MIB,
      'reported pages came back',
    );
    await guest.hold(200, 2);
    t.equal(await guest.verify(), 0);
  };
  await Promise.all([check(plain), check(zeroed)]);
});

void t.test('hugetlbfs: whole huge pages are given back, in whatever order their parts came', async (t) => {
  t.ok(reserveHugePages(t, 300), 'the host has 300 huge pages to lend');
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'huge', { backing: 'hugetlb' });
  t.equal(await hugePages(daemon, 'huge'), 'all memory is in pages of hugetlbfs');
  t.ok(await guest.eat(400));
  await guest.hold(60, 9);
  const before = guest.memfdAllocatedBytes();
  await daemon.ok('set', 'huge', '--balloon', '300M', '--wait', '--timeout', '60');
  // They are discarded after the ack.
  const fell = (): number => before - guest.memfdAllocatedBytes();
  const { balloon } = await daemon.until('huge', () => fell() > 200 * MIB, 'most of it came back');
  const freed = fell();
  t.equal(freed % (2 * MIB), 0, 'whole huge pages');
  t.ok(
    balloon.pendingBytes <= 300 * MIB - freed + 64 * MIB,
    `${balloon.pendingBytes} wait for the rest of their page`,
  );
  await daemon.ok('set', 'huge', '--balloon', '50M', '--wait');
  t.ok(await guest.eat(200));
  t.equal(await guest.verify(), 0);
});

void t.test(
  "beside QEMU's own balloon with reporting, the driver refuses this one, and doctor names both",
  async (t) => {
    const daemon = await startDaemon(t);
    const guest = await boot(t, daemon, 'both', { builtinBalloon: true });
    t.match(
      (await guest.sh('dmesg')).output,
      /virtio_balloon virtio\d+: probe with driver virtio_balloon failed with error -16/,
    );
    const driver = await found(daemon, 'both', 'driver');
    t.match(driver, {
      found: /^connected; QEMU's own balloon/,
      mend: /^start QEMU without its own virtio-balloon/,
    });
  },
);
