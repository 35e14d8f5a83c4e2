// The guest's driver under Linux' own checkers (scripts/checked-kernel): memory that moves and goes, requests for memory that fail, sleep,
// a driver that comes and goes, a device that does not answer. Building a kernel takes five minutes of two processors and needs root,
// so it is run by name: npm test -- out/test/e2e/checked-driver.check.js
// CHECKERS=kasan,leaks.bookworm chooses kernels (that of Debian 13, and of Debian 12), MINUTES=10 how long each guest works (3).
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { boot, MIB, startDaemon } from '../support/e2e.js';
import { loadCacheModule } from '../support/lab/cache-module.js';
import type { Guest } from '../support/lab/guest.js';
import { ensureLab } from '../support/lab/lab.js';
import { MACHINES } from '../support/lab/machines.js';

t.setTimeout(0);

const CHECKERS = (process.env['CHECKERS'] ?? 'kasan,kcsan,pages,leaks').split(',');
const WORKS_MS = Number(process.env['MINUTES'] ?? 3) * 60_000;
const COMPLAINTS = /BUG|WARNING|Call Trace|Bad page|oom-kill|hung_task|blocked for more/;
/** The port of the guest's agent is silent after sleep in Linux 7.3, also in a guest without a balloon. */
const LOSES_AGENT = /\.trixie-backports$/;
const DRIVER = '/sys/bus/virtio/drivers/virtio_balloon';
const STANDS_STILL_MS = 5000;
const LONG_MS = 300_000;
/** A shell finds the work queues' threads, of which one is the driver's when it works. */
const LET_WORKERS_FAIL = `for p in /proc/[0-9]*; do case $(cat $p/comm) in kworker*) echo 1 > $p/make-it-fail;; esac; done`;

/** A way in which a guest's memory is moved, taken or missed; a line of the guest's shell. */
const HAPPENINGS: Record<string, string> = {
  compaction: 'echo 1 > /proc/sys/vm/compact_memory',
  // A block with memory of the kernel's own stays.
  offline: `n=0; for b in /sys/devices/system/memory/memory[0-9]*; do case $(cat $b/valid_zones) in Movable)
    echo offline 2>/dev/null > $b/state && echo online_movable > $b/state && n=$((n+1));; esac; done; [ $n -gt 0 ]`,
  cma: 'for n in 1 2 3; do echo 4096 > /d/cma/reserved/alloc; echo 4096 > /d/cma/reserved/free; done',
  cgroup: `mkdir -p /c/small; echo 24M > /c/small/memory.max
    (echo 0 > /c/small/cgroup.procs; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=200)`,
  disk: 'dd if=/dev/nvme0n1 of=/dev/null bs=1M; echo 3 > /proc/sys/vm/drop_caches',
  processor: 'for n in 0 1; do echo $n > /sys/devices/system/cpu/cpu1/online; done',
  reload: 'rmmod virtio_balloon && insmod /ours.ko',
  // Linux 6.12's own driver of the disk keeps locks of a queue that it freezes, of which lockdep complains.
  sleep: `d=$(basename $(readlink -f /sys/block/nvme0n1/device/device)); echo $d > /sys/bus/pci/drivers/nvme/unbind
    echo devices > /sys/power/pm_test; echo freeze > /sys/power/state; e=$?; echo none > /sys/power/pm_test
    echo $d > /sys/bus/pci/drivers/nvme/bind; n=0; while [ ! -e /dev/nvme0n1 ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done; exit $e`,
  failures: `${LET_WORKERS_FAIL}
    for kind in failslab fail_page_alloc; do echo 10 > /d/$kind/probability; echo -1 > /d/$kind/times; done
    sleep 3; for kind in failslab fail_page_alloc; do echo 0 > /d/$kind/probability; done`,
};
const SETTING_UP = `mount -t debugfs none /d && mkdir /c && mount -t cgroup2 none /c && echo +memory > /c/cgroup.subtree_control
  for kind in failslab fail_page_alloc; do
    echo Y > /d/$kind/task-filter; echo 0 > /d/$kind/verbose; echo N > /d/$kind/ignore-gfp-wait; done
  echo 0 > /d/fail_page_alloc/min-order`;

for (const checker of CHECKERS) {
  void t.test(`a driver's life, under ${checker}`, async (t) => {
    const machine = { ...MACHINES.q35, suite: checker };
    const { cacheModule } = await ensureLab(machine);
    const daemon = await startDaemon(t);
    const guest = await boot(t, daemon, 'life', {
      machine,
      memoryMib: 1024,
      cpus: 2,
      hotplugSlots: 1,
      kernelArgs: [
        'balloon=off',
        'movablecore=384M',
        'cma=32M',
        'kmemleak=on',
        'page_owner=on',
        'page_poison=1',
      ],
      extraArgs: [
        ...['-drive', `if=none,id=cold,driver=null-co,read-zeroes=on,size=400M`],
        ...['-device', 'nvme,drive=cold,serial=cold'],
      ],
    });
    const setUp = await guest.sh(`mkdir /d; ${SETTING_UP}`);
    t.equal(setUp.code, 0, setUp.output);
    await quiet(t, guest, 'before the driver');
    await loadCacheModule(guest, cacheModule ?? '');
    await daemon.ok('set', 'life', '--cache-limit', '300M');
    await guest.hold(64, 1, LONG_MS);

    const until = Date.now() + WORKS_MS;
    for (let round = 0; round === 0 || Date.now() < until; round++) {
      for (const [what, command] of Object.entries(HAPPENINGS)) {
        if (what === 'sleep' && LOSES_AGENT.test(checker)) continue;
        await daemon.ok('set', 'life', '--balloon', `${[64, 300, 129, 0][round % 4]}M`);
        const { code, output } = await guest.sh(command, LONG_MS);
        t.equal(code, 0, `${what}: ${output}`);
        t.equal(await guest.churn(2000, round, LONG_MS), 0, `memory after ${what}`);
        await quiet(t, guest, what);
      }
    }

    await t.test('memory that is plugged in', async (t) => {
      await guest.addMemory(128);
      await daemon.ok('set', 'life', '--balloon', '300M', '--wait', '--timeout', '120');
      t.match(await daemon.show('life'), { balloon: { actualBytes: 300 * MIB } });
    });
    await t.test('a device that does not answer', async (t) => {
      process.kill(daemon.pid, 'SIGSTOP');
      // QEMU asks the daemon when the driver reads the configuration, and the guest's processor waits meanwhile.
      const working = guest.renew(60, 7, LONG_MS);
      await sleep(STANDS_STILL_MS);
      process.kill(daemon.pid, 'SIGCONT');
      t.equal(await working, 0, 'the guest goes on');
      await daemon.ok('set', 'life', '--balloon', '64M', '--wait', '--timeout', '120');
    });
    await t.test('each request for memory of a start that fails', async (t) => {
      const device = (await guest.sh(`cd ${DRIVER}; echo virtio*`)).output.trim();
      let failed = 0;
      let nth = 1;
      for (let left = 0; left === 0; nth++) {
        // The shell itself starts the driver, so that all requests are of that start; what is left of the count was not reached.
        const { output } = await guest.sh(
          `cd ${DRIVER}; [ ! -e ${device} ] || echo ${device} > unbind
          sh -c 'echo 1 > /proc/self/make-it-fail; echo ${nth} > /proc/self/fail-nth; echo ${device} > bind && echo started
            read left < /proc/self/fail-nth; echo 0 > /proc/self/fail-nth; echo left $left'`,
          LONG_MS,
        );
        left = Number(/^left (\d+)$/m.exec(output)?.[1]);
        if (!output.includes('started')) failed++;
      }
      t.ok(failed > 20, `${failed} of ${nth} starts failed`);
      await guest.sh('rmmod virtio_balloon');
      // The kernel tells of some of the requests itself.
      await quiet(t, guest, 'starts that fail', /BUG|WARNING|Bad page/);
    });
    t.equal((await guest.sh('insmod /ours.ko')).code, 0);
    t.equal(await guest.verify(LONG_MS), 0);
    t.equal((await guest.sh('rmmod virtio_balloon')).code, 0);
    await quiet(t, guest, 'all');
  });
}

/** Nothing was said since the last look; where the kernel looks for leaks, there is none. */
async function quiet(t: Test, guest: Guest, what: string, complaints = COMPLAINTS): Promise<void> {
  const { output } = await guest.sh(
    `dmesg -c; [ ! -e /d/kmemleak ] || { echo scan > /d/kmemleak; sleep 1; echo scan > /d/kmemleak; cat /d/kmemleak; }`,
    LONG_MS,
  );
  t.notMatch(output, complaints, what);
  t.notMatch(output, /unreferenced object/, what);
}
