// The page cache balloon with its Linux driver in a real guest. GUEST_KERNEL_MODULE=PATH takes a module that was built
// before (for the kernel of the lab).
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { DaemonProcess } from '../support/daemon.js';
import { MIB, startDaemon } from '../support/e2e.js';
import { buildCacheModule, loadCacheModule } from '../support/lab/cache-module.js';
import { Guest } from '../support/lab/guest.js';

const CONFIG = `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ", "VIRTIO_BALLOON_F_DEFLATE_ON_OOM"]

[[socket]]
path = "{folder}/cache.sock"
device = "cache-balloon"
`;
/** What a guest of 256 MiB that does nothing can spare at least. */
const HELD_BYTES = 100 * MIB;
const DISK = '/dev/nvme0n1';
const DRIVER = '/sys/bus/virtio/drivers/virtio_balloon';
const VIEW = '/sys/kernel/debug/virtio_balloon/virtio*';

const module = await buildCacheModule();
const skip =
  module === null &&
  'Debian has no headers for the kernel of the lab any more: remove the folder that scripts/lab names, so that it gets a newer kernel';

void t.test('the guest gives what it can spare, and takes what it needs', { skip }, async (t) => {
  const daemon = await startDaemon(t, { config: CONFIG, supervise: true });
  const printed = await daemon.ok(
    ...['qemu-args', '--json', '--memory', '256M', '--name', 'cached', '--socket-path', daemon.socketPath],
    ...['--cache-socket-path', join(daemon.folder, 'cache.sock')],
  );
  const guest = await Guest.boot({
    name: 'cached',
    memoryMib: 256,
    // Without reporting there is one queue less, and hints have none either.
    pasted: (JSON.parse(printed) as string[]).map((word) => word.replace('num_vqs=7', 'num_vqs=3')),
    // So that the disk interrupts by message: on a line that it shares it may not be heard any more.
    acpi: true,
    extraArgs: [
      ...['-drive', `if=none,id=cold,driver=null-co,read-zeroes=on,size=${2 * 256}M`],
      ...['-device', 'nvme,drive=cold,serial=cold'],
    ],
  });
  t.teardown(() => guest.kill());
  await guest.waitReady();
  // What old kernels say of a machine without ACPI is not the driver's.
  await guest.sh('dmesg -c');
  t.ok(await guest.eat(140), 'all of the guest is there');
  const full = guest.memfdAllocatedBytes();
  t.ok(full > 160 * MIB, `${full} on the host`);
  await loadCacheModule(guest, module ?? '');
  const views = await daemon.list();
  t.equal(views.length, 1, 'two devices of one process are one VM');
  await daemon.until('cached', ({ features }) => features.includes('VIRTIO_CACHE_BALLOON_F_RANGES'), 'runs');

  await daemon.ok('set', 'cached', '--cache-limit', '240M');
  const held = await daemon.until(
    'cached',
    ({ cache }) => (cache?.actualBytes ?? 0) > HELD_BYTES,
    'the balloon grows',
  );
  t.ok((held.cache?.actualBytes ?? 0) <= 240 * MIB);
  // Part of what it holds was never there.
  await daemon.until('cached', () => guest.memfdAllocatedBytes() < full - HELD_BYTES / 2, 'the host has it');

  // Nothing is asked of the host: reclaim takes the pages.
  await guest.hold(150, 3);
  t.equal(await guest.verify(), 0, 'what was written in pages of the balloon');
  const under = await daemon.until(
    'cached',
    ({ cache }) => (cache?.actualBytes ?? Infinity) < HELD_BYTES / 2,
    'reclaim took pages back',
  );
  t.ok((under.cache?.deflatedBytesTotal ?? 0) > 50 * MIB, 'and told so');
  t.notMatch(
    (await guest.sh('dmesg')).output,
    /oom-kill|BUG|WARNING|Call Trace/,
    'no OOM kill, no complaint',
  );

  // Page cache that is read once is worth less than the balloon.
  await guest.hold(40, 4);
  const idle = await daemon.until(
    'cached',
    ({ cache }) => (cache?.actualBytes ?? 0) > HELD_BYTES,
    'it grows',
  );
  await guest.sh(`(dd if=${DISK} of=/dev/null bs=1M; echo $? >/read) >/dev/null 2>&1 &`);
  const beside: number[] = [];
  do beside.push((await daemon.show('cached')).cache?.actualBytes ?? 0);
  while ((await guest.sh('sleep 0.2; test -f /read')).code !== 0);
  const usual = beside.sort((a, b) => a - b)[Math.floor(beside.length / 2)] ?? 0;
  t.ok(usual > 0.75 * (idle.cache?.actualBytes ?? 0), `${usual} held while a disk was read`);
  t.equal((await guest.sh('cat /read')).output.trim(), '0');
  t.equal(await guest.verify(), 0);

  // Killed while pages go to and fro.
  for (let kill = 0; kill < 3; kill++) {
    const working = guest.renew(20, kill);
    await sleep(150);
    await daemon.crash();
    t.equal(await working, 0);
  }
  t.match(await daemon.show('cached'), { cache: { targetBytes: 240 * MIB } });
  await guest.drop();
  await daemon.until('cached', ({ cache }) => (cache?.actualBytes ?? 0) > HELD_BYTES, 'it grows again');

  // Both devices at once.
  await daemon.ok('set', 'cached', '--balloon', '16M', '--wait');
  await daemon.ok('set', 'cached', '--balloon', '0', '--wait');

  // Large folios in pieces, as compaction leaves them when it is short of memory: each piece is told.
  t.equal(
    (await guest.sh('mount -t debugfs none /tmp && echo 1 > /tmp/split_huge_pages && umount /tmp')).code,
    0,
  );

  // The host asks for all of it.
  await daemon.ok('inhibit', 'cached');
  await daemon.until('cached', ({ cache }) => cache?.actualBytes === 0, 'locked');
  await daemon.ok('allow', 'cached');
  await daemon.until('cached', ({ cache }) => (cache?.actualBytes ?? 0) > HELD_BYTES, 'allowed');

  const rebound = await guest.sh(
    `cd ${DRIVER} && dev=$(grep -l 0x000d virtio*/device | cut -d/ -f1) && echo $dev > unbind && echo $dev > bind && ls -d virtio*`,
  );
  t.equal(rebound.code, 0, rebound.output);
  await daemon.until('cached', ({ cache }) => (cache?.actualBytes ?? 0) > HELD_BYTES, 'bound again');
  await daemon.ok('set', 'cached', '--cache-limit', '0');
  await daemon.until('cached', ({ cache }) => cache?.actualBytes === 0, 'flushed');
  t.equal((await guest.sh('rmmod virtio_balloon')).code, 0);
  t.notMatch((await guest.sh('dmesg')).output, /oom-kill|BUG|WARNING|Call Trace/, 'no complaint');
  t.notMatch(daemon.log, /resume-failed|hand-over-failed|vm-dropped|frontend-error|driver-error/);
});

/** A guest of 512 MiB whose page cache balloon has grown, and that has read its disk once. */
async function afterOneRead(
  t: Test,
  limitMib: number,
  cpus = 1,
): Promise<{ daemon: DaemonProcess; guest: Guest; readMib: () => Promise<number> }> {
  const daemon = await startDaemon(t);
  const guest = await Guest.boot({
    name: 'loop',
    memoryMib: 512,
    sockets: [{ path: daemon.socketPath }],
    acpi: true,
    kernelArgs: ['balloon=off'],
    cpus,
    extraArgs: [
      ...['-drive', 'if=none,id=cold,driver=null-co,read-zeroes=on,size=1024M'],
      ...['-device', 'nvme,drive=cold,serial=cold'],
    ],
  });
  t.teardown(() => guest.kill());
  await guest.waitReady();
  await loadCacheModule(guest, module ?? '');
  await daemon.ok('set', 'loop', '--cache-limit', `${limitMib}M`);
  await daemon.until('loop', ({ cache }) => (cache?.actualBytes ?? 0) >= 200 * MIB, 'it grows');
  // The page cache of a disk ends with its last reader.
  await guest.sh(`sleep 1000000 <${DISK} >/dev/null 2>&1 & dd if=${DISK} of=/dev/null bs=1M`);
  const readMib = async (): Promise<number> => {
    const { output } = await guest.sh(`cat /sys/block/nvme0n1/stat`);
    return (Number(output.trim().split(/\s+/)[2]) * 512) / MIB;
  };
  return { daemon, guest, readMib };
}

/** What the guest reads over and over, a little more than the balloon leaves: each round, reclaim has what the next one reads. */
for (const { limit, limitMib, loopMib, cpus } of [
  { limit: 'that it does not reach', limitMib: 512, loopMib: 250, cpus: 1 },
  // The timer that looks belongs to one of them, and another one may read.
  { limit: 'that it has reached', limitMib: 200, loopMib: 270, cpus: 4 },
]) {
  void t.test(
    `what is read over and over is worth more than a balloon with a limit ${limit}`,
    { skip },
    async (t) => {
      const { daemon, guest, readMib } = await afterOneRead(t, limitMib, cpus);
      const rounds: number[] = [];
      do {
        const before = await readMib();
        await guest.sh(`dd if=${DISK} of=/dev/null bs=1M count=${loopMib}`);
        rounds.push((await readMib()) - before);
      } while ((rounds.at(-1) ?? 0) > loopMib / 20 && rounds.length < 60);
      t.ok((rounds.at(-1) ?? Infinity) <= loopMib / 20, `MiB from the disk, by round: ${rounds.join(' ')}`);
      t.ok(((await daemon.show('loop')).cache?.actualBytes ?? 0) > 0, 'the balloon keeps the rest');
    },
  );
}

void t.test(
  'a little that is read again is worth more than the balloon where little else is read',
  { skip },
  async (t) => {
    const { guest, readMib } = await afterOneRead(t, 512);
    // Fewer pages a second than are too many beside other reads, and once before.
    const setMib = 16;
    const round = `for n in $(seq 0 ${setMib - 1}); do dd if=${DISK} of=/dev/null bs=1M skip=$n count=1 2>/dev/null; sleep 0.6; done`;
    await guest.sh(round);
    const before = await readMib();
    const rounds = 4;
    for (let n = 0; n < rounds; n++) await guest.sh(round);
    const again = (await readMib()) - before;
    t.ok(again < (rounds * setMib) / 2, `of ${rounds * setMib} MiB, ${again} came from the disk again`);
  },
);

void t.test(
  'the balloon gives way to a guest that works for longer than to one that does nothing',
  { skip },
  async (t) => {
    const { daemon, guest } = await afterOneRead(t, 512);
    const wayS = 32;
    const set = async (name: string, ms: number): Promise<void> => {
      const { code } = await guest.sh(`echo ${ms} >/sys/module/virtio_balloon/parameters/${name}`);
      t.equal(code, 0);
    };
    /** Whether the balloon gives way, and when that was, by the guest's own clock. */
    const look = async (): Promise<{ givesWay: boolean; seconds: number }> => {
      const { output } = await guest.sh(`sed -n 's/^cache: //p' ${VIEW}; cat /proc/uptime`);
      const [does = '', uptime = ''] = output.split('\n');
      return { givesWay: does.startsWith('gives way'), seconds: parseFloat(uptime) };
    };
    await guest.sh('mount -t debugfs none /sys/kernel/debug');
    await daemon.until('loop', ({ cache }) => (cache?.actualBytes ?? 0) > 380 * MIB, 'it has grown again');
    await set('backoff_max_ms', wayS * 1000);
    await set('backoff_ms', wayS * 1000);
    // At its limit it has nothing to do, and once pages were taken it rests for as long; it looks all the same.
    await daemon.ok('set', 'loop', '--cache-limit', '300M');
    await daemon.until('loop', ({ cache }) => cache?.actualBytes === 300 * MIB, 'it has reached its limit');
    await guest.hold(150, 1);
    for (let n = 0; n < 10 && !(await look()).givesWay; n++)
      await guest.sh(`dd if=${DISK} of=/dev/null bs=1M count=250`);
    const gaveWay = await look();
    t.ok(gaveWay.givesWay, 'what is read over and over makes it give way');
    await set('backoff_ms', 1000);

    await guest.sh('(while :; do :; done) >/dev/null 2>&1 & echo $! >/busy; sleep 10');
    await daemon.ok('set', 'loop', '--cache-limit', '511M');
    let now = await look();
    t.ok(now.givesWay, 'the guest works, and has all of that time');
    await guest.sh('kill $(cat /busy)');
    while (now.givesWay && now.seconds < gaveWay.seconds + 2 * wayS) {
      await guest.sh('sleep 4');
      now = await look();
    }
    t.ok(now.seconds < gaveWay.seconds + wayS, `${now.seconds - gaveWay.seconds} s of ${wayS}`);
  },
);
