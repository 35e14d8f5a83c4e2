// One device with both limits, and its Linux driver in a real guest: the lower limit in chunks of 2 MiB, the upper limit in
// the page cache, and the kernel's own driver on the same device before and after. GUEST_KERNEL_MODULE=PATH takes a module that
// was built before (for the kernel of the lab); ROUNDS=50 changes drivers as often.
import t from 'tap';
import { eventually } from '../support/deadline.js';
import { boot, GIB, MIB, startDaemon } from '../support/e2e.js';
import { buildCacheModule, loadCacheModule } from '../support/lab/cache-module.js';

const ROUNDS = Number(process.env['ROUNDS'] ?? 5);
const COMPLAINTS = /oom-kill|BUG|WARNING|Call Trace|Bad page/;
const KERNELS = '/virtio_balloon.ko';
const OURS = '/ours.ko';

const module = await buildCacheModule();
const skip =
  module === null &&
  'Debian has no headers for the kernel of the lab any more: remove the folder that scripts/lab names, so that it gets a newer kernel';

void t.test('a guest with our driver keeps both limits', { skip }, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  const printed = await daemon.ok(
    ...['qemu-args', '--json', '--memory', '512M', '--name', 'both', '--socket-path', daemon.socketPath],
  );
  const guest = await boot(t, daemon, 'both', {
    pasted: JSON.parse(printed) as string[],
    kernelArgs: ['balloon=off'],
  });
  await guest.sh('dmesg -c');
  t.ok(await guest.eat(380), 'all of the guest is there');
  const full = guest.memfdAllocatedBytes();
  await loadCacheModule(guest, module ?? '');
  await daemon.until('both', ({ cache, stats }) => cache !== null && stats !== null, 'runs');
  t.equal((await daemon.list()).length, 1);

  // The lower limit, of chunks and single pages.
  await daemon.ok('set', 'both', '--balloon', '201M', '--wait');
  const low = await daemon.until('both', ({ balloon }) => balloon.pendingBytes === 0, 'all is discarded');
  t.match(low, { balloon: { actualBytes: 201 * MIB }, verdict: null });
  t.ok(full - guest.memfdAllocatedBytes() > 120 * MIB, 'the host has it');
  await guest.hold(60, 1);

  // The upper limit, beyond the lower one.
  await daemon.ok('set', 'both', '--cache-limit', '400M');
  await daemon.until(
    'both',
    ({ cache }) => (cache?.actualBytes ?? 0) > 60 * MIB,
    'the page cache balloon grows',
  );
  await guest.hold(180, 2);
  t.equal(await guest.verify(), 0, 'what was written in pages of the page cache balloon');
  t.match(await daemon.show('both'), { balloon: { actualBytes: 201 * MIB } });
  await daemon.until(
    'both',
    ({ cache }) => (cache?.deflatedBytesTotal ?? 0) > 0,
    'reclaim took pages back, and tells so',
  );

  // Up and down in steps that split chunks, with a daemon that is killed.
  for (const balloon of ['100M', '99M', '199M', '3M', '150M']) {
    await daemon.ok('set', 'both', '--balloon', balloon, '--wait');
    t.equal(await guest.churn(3000, balloon.length), 0);
    if (balloon === '199M') await daemon.crash();
  }
  t.equal(await guest.verify(), 0);

  // All is given back before the driver goes.
  await guest.drop();
  t.equal((await guest.sh('rmmod virtio_balloon')).code, 0);
  const gone = await daemon.until('both', ({ state }) => state === 'stopped', 'stopped');
  t.match(gone, { balloon: { actualBytes: 0 }, cache: { actualBytes: 0 } });
  t.ok(await guest.eat(380), 'all of the guest is its own');
  t.notMatch((await guest.sh('dmesg')).output, COMPLAINTS, 'no complaint');
  t.notMatch(daemon.log, /resume-failed|hand-over-failed|vm-dropped|frontend-error|driver-error/);
});

void t.test(
  'a guest gives up at least the target, and at most the target and the cache limit together',
  { skip },
  async (t) => {
    const daemon = await startDaemon(t);
    const guest = await boot(t, daemon, 'sum', { memoryMib: 768, kernelArgs: ['balloon=off'] });
    await loadCacheModule(guest, module ?? '');
    const given = { balloon: { actualBytes: 324 * MIB }, cache: { actualBytes: 200 * MIB } };
    await daemon.ok('set', 'sum', '--balloon', '324M', '--wait');
    await daemon.ok('set', 'sum', '--cache-limit', '200M');
    await daemon.until('sum', ({ cache }) => cache?.actualBytes === 200 * MIB, 'all that it may have');
    t.match(await daemon.show('sum'), given, 'the two add up');

    // A larger target finds no more free memory, and reclaim takes pages of the page cache balloon for it.
    await daemon.ok('set', 'sum', '--balloon', '600M', '--wait');
    await daemon.until('sum', ({ cache }) => (cache?.actualBytes ?? 0) < 100 * MIB, 'it makes room');
    t.match(await daemon.show('sum'), { balloon: { actualBytes: 600 * MIB } });
    await daemon.ok('set', 'sum', '--balloon', '324M', '--wait');
    await daemon.until('sum', ({ cache }) => cache?.actualBytes === 200 * MIB, 'and grows again');
    t.match(await daemon.show('sum'), given);
  },
);

void t.test(`a guest changes drivers ${ROUNDS} times while it works`, { skip }, async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'change', { memoryMib: 512 });
  await guest.sh('dmesg -c');
  await loadCacheModule(guest, module ?? '');
  await daemon.ok('set', 'change', '--balloon', '150M');
  await daemon.ok('set', 'change', '--cache-limit', '300M');
  await guest.hold(120, 3);
  for (let round = 0; round < ROUNDS; round++) {
    for (const driver of [KERNELS, OURS]) {
      t.equal(await guest.renew(8, round), 0, 'what was written stays');
      const swapped = await guest.sh(`rmmod virtio_balloon && insmod ${driver}`);
      t.equal(swapped.code, 0, swapped.output);
      t.equal(await guest.churn(2000, round), 0);
      const ours = driver === OURS;
      const view = await daemon.until(
        'change',
        ({ balloon, cache }) => balloon.actualBytes === 150 * MIB && (cache !== null) === ours,
        `reached with ${driver}`,
      );
      t.match(view, { balloon: { targetBytes: 150 * MIB }, verdict: null });
      if (ours) t.match(view, { cache: { targetBytes: 300 * MIB } });
    }
  }
  t.equal(await guest.verify(), 0);
  t.notMatch((await guest.sh('dmesg')).output, COMPLAINTS, 'no complaint');
});

void t.test(
  'a VMM with the arguments of old has a plain balloon, also with our driver',
  { skip },
  async (t) => {
    const daemon = await startDaemon(t);
    const device = { numVqs: 5, configSize: 16 };
    const guest = await boot(t, daemon, 'old', { memoryMib: 256, device, kernelArgs: ['balloon=off'] });
    await guest.sh('dmesg -c');
    await loadCacheModule(guest, module ?? '');
    await daemon.ok('set', 'old', '--balloon', '64M', '--wait');
    const view = await daemon.show('old');
    t.match(view, { cache: null, verdict: null, balloon: { actualBytes: 64 * MIB } });
    t.same(view.queuesLacking, { present: 5, needed: 7 });
    t.match((await daemon.ctl('doctor')).stdout, /num_vqs=7,config_size=44/);
    t.notMatch((await guest.sh('dmesg')).output, COMPLAINTS, 'no complaint');
  },
);

void t.test(
  'single pages move out of memory that goes offline, and a guest out of memory gets its balloon back',
  { skip },
  async (t) => {
    const daemon = await startDaemon(t);
    const guest = await boot(t, daemon, 'moves', {
      memoryMib: 768,
      // At a random place the kernel's own pages may be in each block that could go.
      kernelArgs: ['balloon=off', 'movablecore=384M', 'nokaslr'],
    });
    await guest.sh('dmesg -c');
    await loadCacheModule(guest, module ?? '');
    await guest.sh('echo 0 > /sys/module/virtio_balloon/parameters/chunks');
    await daemon.ok('set', 'moves', '--balloon', '250M', '--wait', '--timeout', '60');
    await guest.hold(100, 4);
    const offline = await guest.sh(
      `for b in /sys/devices/system/memory/memory[0-9]*; do
         case $(cat $b/valid_zones) in Movable) echo offline > $b/state && echo online_movable > $b/state && echo $b;; esac
       done; grep balloon_migrate /proc/vmstat`,
    );
    t.match(offline.output, /memory[0-9]/, offline.output);
    t.ok(Number(/balloon_migrate (\d+)/.exec(offline.output)?.[1]) > 0, offline.output);
    t.match(await daemon.show('moves'), { balloon: { actualBytes: 250 * MIB }, verdict: null });
    t.equal(await guest.verify(), 0);
    t.ok(await guest.eat(450), 'the guest gets what it needs');
    await daemon.until('moves', ({ balloon }) => balloon.actualBytes < 250 * MIB, 'the balloon gave way');
    t.equal(await guest.verify(), 0);
    t.notMatch((await guest.sh('dmesg')).output, COMPLAINTS, 'no complaint');
  },
);

void t.test('a host that inhibits discards has all of the page cache back', { skip }, async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'asked', { memoryMib: 512, kernelArgs: ['balloon=off'] });
  await loadCacheModule(guest, module ?? '');
  await daemon.ok('set', 'asked', '--cache-limit', '100M');
  await daemon.until('asked', ({ cache }) => cache?.actualBytes === 100 * MIB, 'all that it may have');
  await daemon.ok('inhibit', 'asked');
  await daemon.until('asked', ({ cache }) => cache?.actualBytes === 0, 'all is back');
  t.ok(await guest.eat(200));
  t.match(await daemon.show('asked'), { cache: { actualBytes: 0 } }, 'and stays');
  await daemon.ok('allow', 'asked');
  await daemon.until('asked', ({ cache }) => cache?.actualBytes === 100 * MIB, 'allowed again');
});

void t.test('the guest sees what its driver holds, and why it stands still', { skip }, async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'seen', { memoryMib: 512, kernelArgs: ['balloon=off'] });
  await guest.sh('mount -t debugfs none /sys/kernel/debug');
  await loadCacheModule(guest, module ?? '');
  await daemon.ok('set', 'seen', '--balloon', '21M', '--wait');
  await daemon.ok('set', 'seen', '--cache-limit', '8M');
  const seen = async (...wanted: readonly RegExp[]) => {
    let output = '';
    await eventually(
      async () => {
        ({ output } = await guest.sh('cat /sys/kernel/debug/virtio_balloon/virtio*'));
        return wanted.every((words) => words.test(output));
      },
      () => `${wanted.join(' ')} in ${output}`,
    );
    return output;
  };
  const all = await seen(
    /^balloon: has reached its target, for \d+ ms$/m,
    /^cache: has reached its limit, for \d+ ms$/m,
  );
  const kib = (name: string) => Number(new RegExp(`^${name}: (\\d+) kB$`, 'm').exec(all)?.[1]);
  t.equal(kib('target'), 21 * 1024);
  t.equal(kib('held in chunks') + kib('held in pages'), 21 * 1024);
  t.equal(kib('cache limit'), 8 * 1024);
  t.equal(kib('cache held'), 8 * 1024);
  t.notMatch(all, /waits for the host/);

  await guest.hold(200, 1);
  await daemon.ok('set', 'seen', '--balloon', '350M');
  await seen(/^balloon: the guest has no free memory, for \d+ ms$/m);
  t.equal(await guest.verify(), 0);
});

void t.test('1 GiB goes in and out in few buffers', { skip }, async (t) => {
  const daemon = await startDaemon(t);
  const guest = await boot(t, daemon, 'fast', { memoryMib: 2048, kernelArgs: ['balloon=off'] });
  await loadCacheModule(guest, module ?? '');
  await daemon.ok('set', 'fast', '--balloon', '1G', '--wait', '--timeout', '60');
  t.match(await daemon.show('fast'), { balloon: { actualBytes: GIB } });
  await daemon.ok('set', 'fast', '--balloon', '0', '--wait', '--timeout', '60');
  t.ok(await guest.eat(1200, 240_000));
});
