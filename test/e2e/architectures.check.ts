// Guests of other architectures, page sizes and kernels, with the real daemon: inflate, deflate, statistics, reboot, and memory that
// is used meanwhile; free page reporting; and what is said of guests whose driver cannot start. What is claimed is compared with the
// words of the guest and of the host. ARCHITECTURES=arm64,… chooses rows.
import t, { type Test } from 'tap';
import { found, MIB, startDaemon } from '../support/e2e.js';
import { eventually } from '../support/deadline.js';
import { Guest, type GuestOptions } from '../support/lab/guest.js';
import { MACHINES, type Machine } from '../support/lab/machines.js';
import { blockBytes, letReport, zones } from '../support/lab/reporting.js';

t.setTimeout(0);

/** Emulated processors of another architecture, on a busy machine. */
const SLOW_MS = 600_000;
const NAME = 'foreign';
const MEMORY_MIB = 768;
const TAKEN = 256 * MIB;
/** Of what the guest says, that which its kernel takes or frees meanwhile. */
const SLACK = 48 * MIB;

interface Shape extends Pick<GuestOptions, 'memoryMib' | 'extraArgs'> {
  readonly machine: Machine;
}

interface Reporting {
  readonly memoryMib: number;
  /** The zones of memory that are large enough for Linux to report what is free in them. */
  readonly zones: readonly string[];
}

interface Served {
  readonly machine: Machine;
  /** What `uname -r` begins with. */
  readonly release: string;
  /** The guest's page. */
  readonly pageBytes: number;
  /** What it reports as a whole: a row of the table in docs/operating.md. */
  readonly blockBytes: number;
  readonly reporting: readonly Reporting[];
}

const SMALL_PAGES = { pageBytes: 4096, blockBytes: 2 * MIB };
const PC = { ...SMALL_PAGES, reporting: [{ memoryMib: MEMORY_MIB, zones: ['DMA32'] }] };

const SERVED: Readonly<Record<string, Served>> = {
  'amd64-6.1': { ...PC, machine: MACHINES.bookworm, release: '6.1.' },
  'amd64-6.12': { ...PC, machine: MACHINES.x86, release: '6.12.' },
  'amd64-7': { ...PC, machine: MACHINES.backports, release: '7.' },
  arm64: {
    ...SMALL_PAGES,
    machine: MACHINES.arm64,
    release: '6.12.',
    reporting: [{ memoryMib: MEMORY_MIB, zones: ['DMA'] }],
  },
  'arm64-16k': {
    machine: MACHINES['arm64-16k'],
    release: '6.12.',
    pageBytes: 16384,
    blockBytes: 32 * MIB,
    // 3 GiB of 4 GiB are in one zone, and the last GiB is in another.
    reporting: [
      { memoryMib: MEMORY_MIB, zones: [] },
      { memoryMib: 4096, zones: ['DMA'] },
    ],
  },
  riscv64: {
    ...SMALL_PAGES,
    machine: MACHINES.riscv64,
    release: '6.12.',
    reporting: [{ memoryMib: MEMORY_MIB, zones: ['DMA32'] }],
  },
  'ppc64le-64k': {
    machine: MACHINES['ppc64le-64k'],
    release: '6.12.',
    pageBytes: 65536,
    blockBytes: 2 * MIB,
    reporting: [{ memoryMib: MEMORY_MIB, zones: ['Normal'] }],
  },
  'i386-pae': {
    ...SMALL_PAGES,
    machine: MACHINES['i386-pae'],
    release: '6.1.',
    reporting: [{ memoryMib: MEMORY_MIB, zones: ['Normal'] }],
  },
};

interface Unserved extends Shape {
  /** Of the guest's kernel log. */
  readonly failure: RegExp;
  readonly verdict: RegExp;
  readonly doctor: { readonly found: RegExp; readonly mend: RegExp };
  /** QEMU's arguments with which the driver of the same guest starts. */
  readonly mended?: readonly string[];
}

const UNSERVED: Readonly<Record<string, Unserved>> = {
  s390x: {
    machine: MACHINES.s390x,
    memoryMib: MEMORY_MIB,
    failure: /virtio_balloon virtio\d+: probe with driver virtio_balloon failed with error -28\n/,
    verdict:
      /^no guest driver has started yet; QEMU's generic device has one interrupt vector.*s390x: take the device out/,
    doctor: {
      found: /^connected; QEMU's generic device has one interrupt vector/,
      mend: /^take the device out of the VM/,
    },
  },
  'i386-pae-6g': {
    machine: MACHINES['i386-pae'],
    memoryMib: 6144,
    // The agent's port is below 4 GiB.
    extraArgs: ['-global', 'virtio-serial-pci.disable-modern=on'],
    failure: /virtio_balloon: probe of virtio\d+ failed with error -2\n/,
    verdict: /^no guest driver has started yet: .*kernel log/,
    doctor: { found: /^none has started yet/, mend: /see dmesg there for an error of the driver$/ },
    // The firmware leaves 64-bit registers below 4 GiB where the processor has no long mode.
    mended: ['-cpu', 'max,lm=off'],
  },
};

/** The daemon and a guest whose driver it waits for; `features`: those that are offered, by default all. */
async function start(t: Test, shape: Shape, features?: readonly string[]) {
  const config =
    features && `[[socket]]\npath = "{folder}/vhost.sock"\nfeatures = ${JSON.stringify(features)}\n`;
  const daemon = await startDaemon(t, config === undefined ? {} : { config });
  const sockets = [{ path: daemon.socketPath, numVqs: features === undefined ? 5 : 3 }];
  const guest = await Guest.boot({ ...shape, name: NAME, sockets });
  t.teardown(() => guest.kill());
  await guest.waitReady(SLOW_MS);
  return { daemon, guest };
}

async function tryBalloon(t: Test, { machine, release, pageBytes }: Served): Promise<void> {
  // Without reporting, so that what comes back to the host is the balloon's doing.
  const features = ['VIRTIO_BALLOON_F_MUST_TELL_HOST', 'VIRTIO_BALLOON_F_STATS_VQ'];
  const { daemon, guest } = await start(t, { machine, memoryMib: MEMORY_MIB }, features);
  await daemon.until(NAME, ({ state }) => state === 'running', 'its driver runs');
  const kernel = (await guest.sh('uname -rm')).output.trim();
  t.ok(kernel.startsWith(release), `the kernel is ${kernel}`);
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

/** The guest frees memory, and reports as much of it as docs/operating.md says. */
async function tryReporting(
  t: Test,
  { machine, pageBytes, blockBytes: expected }: Served,
  { memoryMib, zones: reporting }: Reporting,
): Promise<void> {
  const { daemon, guest } = await start(t, { machine, memoryMib });
  await daemon.until(NAME, ({ state }) => state === 'running', 'its driver runs');
  t.ok((await daemon.show(NAME)).features.includes('VIRTIO_BALLOON_F_REPORTING'));
  t.equal(await blockBytes(guest, pageBytes), expected, 'the block that docs/operating.md names');

  const look = async () => {
    await letReport(guest, SLOW_MS);
    const { reportedBytesTotal } = (await daemon.show(NAME)).balloon;
    return { zones: await zones(guest, pageBytes), reportedBytesTotal, host: guest.memfdAllocatedBytes() };
  };
  const heldMib = Math.floor(memoryMib * 0.6);
  await guest.hold(heldMib, 1, SLOW_MS);
  const held = await look();
  await guest.drop();
  const freed = await look();
  const able = freed.zones.filter(({ reports }) => reports);
  t.same(
    able.map(({ name }) => name),
    reporting,
    JSON.stringify(freed.zones),
  );
  const free = ({ zones }: typeof held): number =>
    zones.filter(({ name }) => reporting.includes(name)).reduce((sum, { freeBytes }) => sum + freeBytes, 0);
  const newlyFree = free(freed) - free(held);
  // Blocks of which a part is in use are not reported.
  const least = newlyFree - SLACK - 8 * expected;
  const reported = Number(freed.reportedBytesTotal) - Number(held.reportedBytesTotal);
  const fell = held.host - freed.host;
  t.comment(
    `of ${newlyFree / MIB} MiB, ${reported / MIB} were reported, and the host has ${fell / MIB} more`,
  );
  if (reporting.length === 0) {
    t.equal(freed.reportedBytesTotal, 0, 'nothing is reported');
    t.ok(Math.abs(fell) < SLACK, 'and the host gets nothing');
  } else {
    t.ok(least > 0 && reported > least, `more than ${least} are reported`);
    // A block that is used and freed meanwhile is reported again.
    t.ok(reported < newlyFree + 2 * SLACK, `${reported} are no more than were free`);
    t.ok(fell > least, `the host has ${fell} more`);
  }
  await guest.hold(heldMib, 2, SLOW_MS);
  t.equal(await guest.verify(SLOW_MS), 0, 'what the guest holds is as it was written');
}

/** The guest's driver cannot start, and verdict and doctor say why or where to look. */
async function tryUnserved(t: Test, row: Unserved): Promise<void> {
  const { daemon, guest } = await start(t, row);
  t.comment((await guest.sh('uname -rm')).output.trim());
  t.match((await guest.sh('dmesg')).output, row.failure, 'the error that docs/operating.md names');
  const { state, verdict } = await daemon.until(NAME, (vm) => vm.verdict !== null, 'it has a verdict');
  t.equal(state, 'connected');
  t.match(verdict, row.verdict);
  const driver = await found(daemon, NAME, 'driver');
  t.match(driver, row.doctor);
}

/** The same guest with what docs/operating.md advises. */
async function tryMended(t: Test, { mended = [], ...row }: Unserved): Promise<void> {
  const { daemon, guest } = await start(t, { ...row, extraArgs: mended });
  await daemon.until(NAME, ({ state }) => state === 'running', 'its driver runs');
  const before = (await guest.meminfo())['MemFree'] ?? 0;
  await daemon.ok('set', NAME, '--balloon', `${TAKEN}`, '--wait', '--timeout', '120');
  t.equal((await daemon.show(NAME)).balloon.actualBytes, TAKEN);
  const taken = before - ((await guest.meminfo())['MemFree'] ?? 0);
  t.ok(Math.abs(taken - TAKEN) < SLACK, `the guest says that it gave ${taken}`);
}

const names = [...Object.keys(SERVED), ...Object.keys(UNSERVED)];
for (const name of process.env['ARCHITECTURES']?.split(',') ?? names) {
  const [served, unserved] = [SERVED[name], UNSERVED[name]];
  if (unserved !== undefined) {
    void t.test(name, (t) => tryUnserved(t, unserved));
    if (unserved.mended) void t.test(`${name}, mended`, (t) => tryMended(t, unserved));
  } else if (served !== undefined) {
    void t.test(name, (t) => tryBalloon(t, served));
    for (const one of served.reporting)
      void t.test(`${name} reports (${one.memoryMib} MiB)`, (t) => tryReporting(t, served, one));
  } else {
    throw new Error(`there is no row ${name}: name some of ${names.join(', ')}`);
  }
}
