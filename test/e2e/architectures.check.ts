// Guests of other architectures and page sizes, with the real daemon: inflate, deflate, statistics, reboot, and memory that is used
// meanwhile; what is claimed against the words of the guest and of the host. ARCHITECTURES=arm64,… chooses rows.
import t, { type Test } from 'tap';
import { MIB, startDaemon } from '../support/e2e.js';
import { eventually } from '../support/deadline.js';
import { Guest } from '../support/lab/guest.js';
import { MACHINES, type Machine } from '../support/lab/machines.js';

t.setTimeout(0);

/** Emulated processors of another architecture, on a busy machine. */
const SLOW_MS = 600_000;
const NAME = 'foreign';
const MEMORY_MIB = 768;
const TAKEN = 256 * MIB;
/** Of what the guest says, that which its kernel takes or frees meanwhile. */
const SLACK = 48 * MIB;

interface Row {
  readonly machine: Machine;
  /** The guest's page. */
  readonly pageBytes: number;
}

const ROWS: Readonly<Record<string, Row>> = {
  arm64: { machine: MACHINES.arm64, pageBytes: 4096 },
  'arm64-16k': { machine: MACHINES['arm64-16k'], pageBytes: 16384 },
  riscv64: { machine: MACHINES.riscv64, pageBytes: 4096 },
  'i386-pae': { machine: MACHINES['i386-pae'], pageBytes: 4096 },
};

async function tryRow(t: Test, { machine, pageBytes }: Row): Promise<void> {
  // Without reporting, so that what comes back to the host is the balloon's doing.
  const daemon = await startDaemon(t, {
    config: `[[socket]]
path = "{folder}/vhost.sock"
features = ["VIRTIO_BALLOON_F_MUST_TELL_HOST", "VIRTIO_BALLOON_F_STATS_VQ"]
`,
  });
  const sockets = [{ path: daemon.socketPath, numVqs: 3 }];
  const guest = await Guest.boot({ name: NAME, machine, memoryMib: MEMORY_MIB, sockets });
  t.teardown(() => guest.kill());
  await guest.waitReady(SLOW_MS);
  await daemon.until(NAME, ({ state }) => state === 'running', 'its driver runs');
  t.comment((await guest.sh('uname -rm; grep . /proc/pagetypeinfo | head -2')).output.trim());
  const smaps = await guest.sh('grep -m1 KernelPageSize /proc/self/smaps');
  t.match(smaps.output, new RegExp(`\\s${pageBytes / 1024} kB`), 'the page that this row stands for');

  t.ok(await guest.eat(MEMORY_MIB - 200, SLOW_MS), 'the host has most of the memory');
  const before = { free: (await guest.meminfo())['MemFree'] ?? 0, host: guest.memfdAllocatedBytes() };
  await daemon.ok('set', NAME, '--balloon', `${TAKEN}`, '--wait', '--timeout', '120');
  const { balloon } = await daemon.until(NAME, (vm) => vm.balloon.pendingBytes === 0, 'all is discarded');
  t.equal(balloon.actualBytes, TAKEN);
  const taken = before.free - ((await guest.meminfo())['MemFree'] ?? 0);
  t.ok(Math.abs(taken - TAKEN) < SLACK, `the guest says that it gave ${taken}`);
  const allocated = guest.memfdAllocatedBytes();
  t.ok(allocated <= MEMORY_MIB * MIB - TAKEN + SLACK, `the host has ${allocated}, and had ${before.host}`);
  t.equal((await daemon.show(NAME)).memory.allocatedBytes, allocated, 'the daemon says so, too');

  const stats = await daemon.stats(NAME);
  const total = (await guest.meminfo())['MemTotal'] ?? 0;
  t.ok(Math.abs(Number(stats.VIRTIO_BALLOON_S_MEMTOT) - total) < SLACK, 'statistics tell of MemTotal');

  await guest.hold(120, 3, SLOW_MS);
  for (let round = 0; round < 3; round++) {
    for (const target of [TAKEN / 4, TAKEN]) {
      await daemon.ok('set', NAME, '--balloon', `${target}`);
      t.equal(await guest.churn(2000, round, SLOW_MS), 0, 'pages that are used meanwhile');
      await daemon.until(NAME, (vm) => vm.balloon.actualBytes === target, `the balloon has ${target}`);
    }
  }
  t.equal(await guest.verify(SLOW_MS), 0, 'what the guest holds is as it was written');

  await guest.reboot(SLOW_MS);
  await daemon.until(NAME, (vm) => vm.balloon.actualBytes === TAKEN, 'the target outlives a reboot');
  await daemon.ok('set', NAME, '--balloon', '0', '--wait', '--timeout', '120');
  await eventually(
    async () => Math.abs(((await guest.meminfo())['MemFree'] ?? 0) - before.free) < 2 * SLACK,
    () => 'the guest has all of it again',
    1000,
  );
}

const chosen = process.env['ARCHITECTURES']?.split(',') ?? Object.keys(ROWS);
for (const name of chosen) {
  const row = ROWS[name];
  if (row === undefined)
    throw new Error(`there is no row ${name}: name some of ${Object.keys(ROWS).join(', ')}`);
  void t.test(name, (t) => tryRow(t, row));
}
