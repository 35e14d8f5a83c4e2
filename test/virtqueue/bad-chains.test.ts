// What a guest may put into a ring that it must not. Each time: the chain comes back exactly once, that ring alone
// stops and says so, and a reload of the driver makes all good.
import t, { type Test } from 'tap';
import { signalEvent } from '../../src/os/eventfd.js';
import { BALLOON_F, BalloonDriver, LINUX_FEATURES, type Role } from '../support/balloon-driver.js';
import { Bystander, resources } from '../support/bystander.js';
import { eachOrder, inEachOrder } from '../support/each-order.js';
import { GuestRam, PAGE_BYTES } from '../support/guest-ram.js';
import {
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_WRITE,
  F_INDIRECT_DESC,
  F_RING_PACKED,
  type GuestRing,
} from '../support/guest-ring.js';
import { PackedRingDriver } from '../support/packed-ring-driver.js';
import { RingDriver } from '../support/ring-driver.js';
import { pfns, ServedVm } from '../support/served-vm.js';
import { bits, concat, u32s, u64s } from '../support/wire.js';

const RING_SIZE = 8;
const RAM_BYTES = 64 * 2 ** 20;
/** Free for the tests' buffers and tables, and pages to give up. */
const BUFFER_GPA = 48 * 2 ** 20;
const TABLE_GPA = 49 * 2 ** 20;
const FIRST = 8192;

type Format = 'split' | 'packed';
const BOTH: readonly Format[] = ['split', 'packed'];
type Running = Awaited<ReturnType<typeof ServedVm.running>>;

interface Descriptor {
  gpa: number | bigint;
  len: number;
  flags?: number;
  /** In a split ring; the one after it unless said. */
  next?: number;
}

const bystander = await Bystander.start();
t.teardown(() => bystander.close());

/** Features without which a VM has no such rings. */
const RINGS: Readonly<Record<Format, bigint>> = { split: 0n, packed: bits(F_RING_PACKED) };
const QUEUES: Readonly<Partial<Record<Role, bigint>>> = {
  stats: bits(BALLOON_F.STATS_VQ),
  reporting: bits(BALLOON_F.REPORTING),
};
const whereIndirect = eachOrder({ features: bits(F_INDIRECT_DESC) });
const whereTold = eachOrder({ features: bits(BALLOON_F.MUST_TELL_HOST) });
const whereReported = eachOrder({ features: bits(BALLOON_F.REPORTING) });

/** Runs `test` with a VM of its own, of which nothing is left afterwards. */
async function withVm(
  t: Test,
  format: Format,
  test: (vm: Running) => Promise<void>,
  without = 0n,
): Promise<void> {
  const before = resources();
  const vm = await ServedVm.running({
    features: [
      'VIRTIO_BALLOON_F_MUST_TELL_HOST',
      'VIRTIO_BALLOON_F_STATS_VQ',
      'VIRTIO_BALLOON_F_REPORTING',
      'VIRTIO_F_RING_PACKED',
    ],
    frontend: { queueCount: 4 },
    driver: { features: (LINUX_FEATURES | RINGS[format]) & ~without, ringSize: RING_SIZE },
  });
  try {
    await test(vm);
  } finally {
    await vm.served.close();
  }
  t.same(resources(), before);
}

/** Offers descriptors just as they are, from number `at` on, which is also the chain's head or buffer id. */
function offer(ring: GuestRing, descriptors: readonly Descriptor[], at = 0): void {
  if (ring instanceof PackedRingDriver) {
    ring.offerDescriptors(
      at,
      descriptors.map(({ gpa, len, flags = 0 }) => ({ gpa, len, flags, id: at })),
    );
  } else if (ring instanceof RingDriver) {
    descriptors.forEach(({ gpa, len, flags = 0, next }, n) =>
      ring.writeDescriptor(at + n, { gpa, len, flags, next: next ?? at + n + 1 }),
    );
    ring.offerHead(at);
  }
}

/** A descriptor of an indirect table. */
function entry({ gpa, len, flags = 0, next = 0 }: Descriptor, format: Format): Uint8Array {
  const tail = format === 'split' ? flags | (next << 16) : flags << 16;
  return concat(u64s(BigInt(gpa)), u32s(len, tail));
}

function writeTable(ram: GuestRam, format: Format, entries: readonly Descriptor[], gpa = TABLE_GPA): void {
  ram.write(gpa, concat(...entries.map((each) => entry(each, format))));
}

/** The driver's other rings, the other VM and, after a reload, this ring work. */
async function contained(
  t: Test,
  { served, frontend, driver }: Running,
  role: Role,
  message: RegExp,
): Promise<void> {
  const index = driver.queueNumbers.get(role) ?? -1;
  await served.until(() => served.saw('driver-error').length > 0, 'the error is seen');
  t.match(served.saw('driver-error'), [{ message, fields: { ring: index } }]);
  t.equal(frontend.takeRingErrors(index), Number(frontend.hearsErrors), 'the err eventfd says so');
  driver.ring(role).kick({ force: true });
  await driver.tellPfns(role === 'deflate' ? 'inflate' : 'deflate', [FIRST]);
  await driver.tellPfns(role === 'inflate' ? 'deflate' : 'inflate', [FIRST]);
  const asks = driver.queueNumbers.has('stats');
  if (asks && role !== 'stats') t.ok(await served.device.refreshStats(5000));
  await bystander.works();
  t.equal(served.saw('driver-error').length, 1, 'once');
  t.match(served.view.verdict, new RegExp(`^ring ${index} is stopped`));
  await driver.reset();
  const again = await BalloonDriver.start(frontend, { features: driver.ackedFeatures, ringSize: RING_SIZE });
  await again.inflate(pfns(FIRST, 20));
  await again.deflate(pfns(FIRST, 10));
  if (again.queueNumbers.has('reporting')) await again.report([{ gpa: FIRST * PAGE_BYTES, len: PAGE_BYTES }]);
  if (asks) t.ok(await served.device.refreshStats(5000));
  t.equal(served.view.verdict, null);
}

interface Bad {
  what: string;
  message: RegExp;
  formats?: readonly Format[];
  role?: Role;
  without?: bigint;
  indirect?: true;
  chain: (ram: GuestRam, format: Format) => readonly Descriptor[];
  at?: number;
  /** The device cannot tell which chain it would be. */
  lost?: boolean;
}

const outside = RAM_BYTES + PAGE_BYTES;
const OUTSIDE = /outside the memory that the VMM shares/;
const table = (ram: GuestRam, format: Format, ...entries: Descriptor[]): Descriptor => {
  writeTable(ram, format, entries);
  return { gpa: TABLE_GPA, len: 16 * entries.length, flags: DESC_INDIRECT };
};
const page: Descriptor = { gpa: BUFFER_GPA, len: 4 };
const BAD: readonly Bad[] = [
  {
    what: 'a chain that loops',
    formats: ['split'],
    chain: () => [
      { ...page, flags: DESC_NEXT },
      { ...page, flags: DESC_NEXT, next: 0 },
    ],
    message: /longer than the queue, or loops/,
  },
  {
    what: 'a chain longer than the queue',
    formats: ['packed'],
    chain: () => Array.from({ length: RING_SIZE }, () => ({ ...page, flags: DESC_NEXT })),
    message: /longer than the queue/,
  },
  ...[RING_SIZE, 0xffff].map((next): Bad => ({
    what: `next ${next}`,
    formats: ['split'],
    chain: () => [{ ...page, flags: DESC_NEXT, next }],
    message: new RegExp(`next ${next} is beyond a queue of 8`),
  })),
  { what: 'a buffer outside memory', chain: () => [{ gpa: outside, len: 4 }], message: OUTSIDE },
  { what: 'a buffer across the end', chain: () => [{ gpa: RAM_BYTES - 4, len: 8 }], message: OUTSIDE },
  {
    what: 'a good buffer, then one outside',
    chain: () => [
      { ...page, flags: DESC_NEXT },
      { gpa: outside, len: 4 },
    ],
    message: OUTSIDE,
  },
  {
    what: 'an address beyond 2^53',
    chain: () => [{ gpa: 1n << 53n, len: 4 }],
    message: /beyond 2\^53/,
  },
  {
    what: 'an address at the end of all',
    chain: () => [{ gpa: (1n << 64n) - 4n, len: 8 }],
    message: /beyond 2\^53/,
  },
  { what: 'an address below 2^53', chain: () => [{ gpa: (1n << 53n) - 4n, len: 4 }], message: OUTSIDE },
  {
    what: 'a length of 4 GiB',
    chain: () => [{ gpa: 0, len: 0xffffffff }],
    message: /longer than 32768 bytes/,
  },
  {
    what: 'more than 8192 page frame numbers',
    chain: () => [
      { gpa: 0, len: 16384, flags: DESC_NEXT },
      { gpa: 0, len: 16388 },
    ],
    message: /longer than 32768 bytes/,
  },
  ...(['inflate', 'deflate', 'stats'] as const).map((role): Bad => ({
    what: `a writable buffer for ${role}`,
    role,
    at: 3,
    chain: () => [{ ...page, flags: DESC_WRITE }],
    message: /device-writable/,
  })),
  {
    what: 'a readable buffer, then a writable one',
    chain: () => [
      { ...page, flags: DESC_NEXT },
      { ...page, flags: DESC_WRITE },
    ],
    message: /device-writable/,
  },
  {
    what: 'a readable buffer for reporting',
    role: 'reporting',
    chain: () => [{ gpa: FIRST * PAGE_BYTES, len: PAGE_BYTES }],
    message: /device-readable/,
  },
  {
    what: 'an indirect table without the feature',
    without: bits(F_INDIRECT_DESC),
    chain: (ram, format) => [table(ram, format, page)],
    message: /without VIRTIO_F_INDIRECT_DESC/,
  },
  {
    what: 'an indirect table in an indirect table',
    indirect: true,
    formats: ['split'],
    chain: (ram, format) => [table(ram, format, { gpa: TABLE_GPA, len: 16, flags: DESC_INDIRECT })],
    message: /inside an indirect table/,
  },
  {
    what: 'an indirect table that has a next',
    indirect: true,
    chain: (ram, format) => [{ ...table(ram, format, page), flags: DESC_INDIRECT | DESC_NEXT }, { ...page }],
    message: /indirect descriptor (has a next|is inside a chain)/,
  },
  {
    what: 'a buffer, then an indirect table',
    indirect: true,
    formats: ['packed'],
    chain: (ram, format) => [{ ...page, flags: DESC_NEXT }, table(ram, format, page)],
    message: /indirect descriptor is inside a chain/,
  },
  ...[0, 8, 17, 16 * (RING_SIZE + 1), 0xfffffff0].map((len): Bad => ({
    what: `an indirect table of ${len} bytes`,
    indirect: true,
    chain: (ram, format) => [{ ...table(ram, format, page), len }],
    message: new RegExp(`indirect table has ${len} bytes`),
  })),
  {
    what: 'an indirect table outside memory',
    indirect: true,
    chain: () => [{ gpa: outside, len: 16, flags: DESC_INDIRECT }],
    message: /indirect table at .* outside/,
  },
  {
    what: 'an indirect table across the end',
    indirect: true,
    chain: () => [{ gpa: RAM_BYTES - 16, len: 32, flags: DESC_INDIRECT }],
    message: /indirect table at .* outside/,
  },
  {
    what: 'an address beyond 2^53 in an indirect table',
    indirect: true,
    chain: (ram, format) => [table(ram, format, { gpa: 1n << 60n, len: 4 })],
    message: /beyond 2\^53/,
  },
  {
    what: 'an indirect chain that loops',
    indirect: true,
    formats: ['split'],
    chain: (ram, format) => [
      table(ram, format, { ...page, flags: DESC_NEXT, next: 1 }, { ...page, flags: DESC_NEXT, next: 0 }),
    ],
    message: /indirect descriptor chain loops/,
  },
  {
    what: 'an indirect chain that leaves its table',
    indirect: true,
    formats: ['split'],
    chain: (ram, format) => [table(ram, format, { ...page, flags: DESC_NEXT, next: 1 })],
    message: /next 1 is beyond an indirect table of 1/,
  },
  ...[1, 2, 3, 5, 1023].map((len): Bad => ({
    what: `page frame numbers in ${len} bytes`,
    role: len % 2 === 0 ? 'deflate' : 'inflate',
    chain: () => [{ gpa: BUFFER_GPA, len }],
    message: /not a multiple of 4/,
  })),
  ...[1, 9, 11, 259].map((len): Bad => ({
    what: `statistics of ${len} bytes`,
    role: 'stats',
    at: 3,
    chain: () => [{ gpa: BUFFER_GPA, len }],
    message: /not a multiple of 10/,
  })),
  {
    what: 'a second statistics buffer',
    role: 'stats',
    at: 3,
    chain: () => [{ gpa: BUFFER_GPA, len: 10 }],
    message: /second buffer into the statistics queue/,
  },
  {
    what: 'a head out of range',
    formats: ['split'],
    at: RING_SIZE,
    chain: () => [],
    message: /head 8 is beyond a queue of 8/,
    lost: true,
  },
  ...[RING_SIZE, 0xffff].map((at): Bad => ({
    what: `buffer id ${at}`,
    formats: ['packed'],
    at,
    chain: () => [page],
    message: new RegExp(`buffer id ${at} is beyond a queue of 8`),
    lost: true,
  })),
];

for (const bad of BAD) {
  const {
    what,
    message,
    formats = BOTH,
    role = 'inflate',
    without,
    indirect,
    chain,
    at = 0,
    lost = false,
  } = bad;
  for (const format of formats) {
    const table = indirect === true ? bits(F_INDIRECT_DESC) : 0n;
    const whereSo = eachOrder({ features: RINGS[format] | (QUEUES[role] ?? 0n) | table });
    whereSo(`${what} (${format})`, (t) =>
      withVm(
        t,
        format,
        async (vm) => {
          const { frontend, driver } = vm;
          const ring = driver.ring(role);
          ring.onCall = null;
          const held = role === 'stats' ? 1 : 0;
          offer(ring, chain(frontend.ram, format), at);
          ring.kick({ force: true });
          await vm.served.until(() => vm.served.saw('driver-error').length > 0, 'the error is seen');
          t.same(ring.collectUsed(), lost ? [] : [{ head: at, len: 0 }], 'comes back exactly once');
          t.equal(ring.outstanding, held + (lost ? 1 : 0));
          await contained(t, vm, role, message);
        },
        without,
      ),
    );
  }
}

for (const format of BOTH) {
  eachOrder({ features: RINGS[format] })(
    `chains before a bad one in the same drain are served (${format})`,
    (t) =>
      withVm(t, format, async (vm) => {
        const { served, frontend, driver } = vm;
        const ring = driver.ring('inflate');
        frontend.ram.write(BUFFER_GPA, u32s(FIRST, FIRST + 1));
        frontend.ram.fillPage(FIRST, 1);
        frontend.ram.fillPage(FIRST + 1, 1);
        ring.add([{ gpa: BUFFER_GPA, len: 4 }], { publish: false });
        const halves = [BUFFER_GPA + 4, BUFFER_GPA + 6].map((gpa) => ({ gpa, len: 2 }));
        ring.add(halves, { publish: false });
        // The device gives up at the first of these, the driver takes back all three.
        const bad = { gpa: 1n << 60n, len: 4, flags: DESC_NEXT };
        offer(ring, [bad, { ...page, flags: DESC_NEXT }, page], 4);
        ring.kick({ force: true });
        await served.until(() => served.saw('driver-error').length > 0, 'the error is seen');
        t.equal(ring.collectUsed().length, 3);
        t.equal(ring.outstanding, 0);
        await served.discarded();
        t.ok(frontend.ram.pageIsZero(FIRST));
        t.ok(frontend.ram.pageIsZero(FIRST + 1));
        await contained(t, vm, 'inflate', /beyond 2\^53/);
      }),
  );
}

for (const ahead of [RING_SIZE + 1, 0x7fff, 0xffff]) {
  inEachOrder(`an avail index ${ahead} ahead (split)`, (t) =>
    withVm(t, 'split', async (vm) => {
      const ring = vm.driver.ring('inflate');
      if (!(ring instanceof RingDriver)) throw new Error('not a split ring');
      ring.writeAvailIndex(ahead);
      signalEvent(ring.kickFd);
      await vm.served.until(() => vm.served.saw('driver-error').length > 0, 'the error is seen');
      t.equal(ring.readUsedIndex(), 0);
      await contained(t, vm, 'inflate', new RegExp(`avail index is ${ahead} ahead in a queue of 8`));
    }),
  );
}

whereIndirect('buffers before an indirect table are one chain (split)', (t) =>
  withVm(t, 'split', async ({ served, frontend, driver }) => {
    const ring = driver.ring('inflate');
    frontend.ram.write(BUFFER_GPA, u32s(FIRST, FIRST + 1, FIRST + 2));
    writeTable(frontend.ram, 'split', [
      { gpa: BUFFER_GPA + 4, len: 4, flags: DESC_NEXT, next: 2 },
      { gpa: 1n << 60n, len: 4 },
      { gpa: BUFFER_GPA + 8, len: 4 },
    ]);
    offer(ring, [
      { gpa: BUFFER_GPA, len: 4, flags: DESC_NEXT },
      { gpa: TABLE_GPA, len: 48, flags: DESC_INDIRECT },
    ]);
    ring.kick();
    t.same(await ring.waitUsed(1), [{ head: 0, len: 0 }]);
    t.equal(served.view.balloon.inflatedBytesTotal, 3 * PAGE_BYTES);
  }),
);

for (const format of BOTH) {
  eachOrder({ features: RINGS[format] })(`odd chains that are allowed (${format})`, (t) =>
    withVm(t, format, async ({ served, frontend, driver }) => {
      const ring = driver.ring('inflate');
      frontend.ram.write(BUFFER_GPA - 6, u32s(FIRST, FIRST + 1, FIRST + 2));
      const chains: (readonly Descriptor[])[] = [
        [{ gpa: BUFFER_GPA, len: 0 }],
        // Numbers in pieces, across a page border and not aligned.
        [
          { gpa: BUFFER_GPA - 6, len: 1, flags: DESC_NEXT },
          { gpa: BUFFER_GPA - 5, len: 6, flags: DESC_NEXT },
          { gpa: BUFFER_GPA + 1, len: 0, flags: DESC_NEXT },
          { gpa: BUFFER_GPA + 1, len: 5 },
        ],
        Array.from({ length: RING_SIZE }, (_, n) => ({
          gpa: BUFFER_GPA - 6,
          len: 4,
          flags: n + 1 < RING_SIZE ? DESC_NEXT : 0,
        })),
      ];
      for (const chain of chains) {
        offer(ring, chain);
        ring.kick({ force: true });
        t.same(await ring.waitUsed(1), [{ head: 0, len: 0 }]);
      }
      t.equal(served.view.balloon.inflatedBytesTotal, 4 * PAGE_BYTES);
      t.same(served.saw('driver-error'), []);
    }),
  );
}

async function withPages(t: Test, ramBytes: number, test: (vm: Running) => Promise<void>): Promise<void> {
  const vm = await ServedVm.running({
    frontend: { ram: GuestRam.likeQemu(ramBytes, { lowBytes: 32 * 2 ** 20 }) },
    driver: { pfnsPerBuffer: 8192 },
  });
  try {
    await test(vm);
    t.same(vm.served.saw('driver-error'), []);
    t.equal(vm.served.view.verdict, null);
  } finally {
    await vm.served.close();
  }
}

/** Guest memory goes on here, in 4 KiB pages. */
const HIGH = 2 ** 20;

inEachOrder('page frame numbers outside memory are skipped, and said once', (t) =>
  withPages(t, RAM_BYTES, async ({ served, frontend, driver }) => {
    const borders = [4096, 8191, HIGH, HIGH + 8191];
    for (const pfn of borders) frontend.ram.fillPage(pfn, 1);
    await driver.tellPfns('inflate', [8192, HIGH - 1, 0xffffffff, HIGH + 8192, ...borders]);
    await served.discarded();
    for (const pfn of borders) t.ok(frontend.ram.pageIsZero(pfn), `page ${pfn}`);
    t.equal(served.view.balloon.inflatedBytesTotal, (4 + 4) * PAGE_BYTES, 'the guest gave all of them up');
    t.match(served.saw('pfn-outside-memory'), [{ fields: { pages: 4 } }]);
    await driver.tellPfns('deflate', [8192, 4096]);
    await driver.tellPfns('inflate', pfns(8000, 1000));
    t.equal(served.saw('pfn-outside-memory').length, 1);
    t.equal(served.view.balloon.inflatedBytesTotal, (4 + 4 + 1000) * PAGE_BYTES);
  }),
);

whereTold('repeated page frame numbers', (t) =>
  withPages(t, RAM_BYTES, async ({ served, driver }) => {
    await driver.tellPfns('inflate', [5000, 5001, 5000, 5002, 5001, 5000]);
    t.equal(served.view.balloon.inflatedBytesTotal, 3 * PAGE_BYTES);
    await served.discarded();
    await served.vm.setInhibited('to see the ledger');
    await driver.tellPfns('inflate', [5002, 5003]);
    await driver.tellPfns('inflate', [5003, 5003, 5002]);
    t.equal(served.view.balloon.pendingBytes, 2 * PAGE_BYTES);
    await driver.tellPfns('deflate', [5003, 5003]);
    await driver.tellPfns('deflate', [5003]);
    t.equal(served.view.balloon.pendingBytes, PAGE_BYTES);
  }),
);

inEachOrder('buffers of 512 and of 8192 page frame numbers', (t) =>
  withPages(t, 92 * 2 ** 20, async ({ served, frontend, driver }) => {
    await driver.tellPfns('inflate', pfns(4096, 512));
    await served.discarded();
    t.equal(served.view.balloon.discardedBytesTotal, 512 * PAGE_BYTES);
    const inside = ((92 - 32) * 2 ** 20) / PAGE_BYTES / 2;
    const last = HIGH + 2 * (inside - 1);
    frontend.ram.fillPage(last, 1);
    // Every other page, in an order that is not theirs.
    const scattered = Array.from({ length: 8192 }, (_, n) => HIGH + 2 * ((n * 4051) % 8192));
    await driver.tellPfns('inflate', scattered);
    t.equal(served.view.balloon.inflatedBytesTotal, (512 + 8192) * PAGE_BYTES);
    t.match(served.saw('pfn-outside-memory'), [{ fields: { pages: 8192 - inside } }]);
    await served.discarded();
    t.ok(frontend.ram.pageIsZero(last));
    await driver.tellPfns('deflate', pfns(HIGH, 8192));
  }),
);

whereReported('a report far beyond memory frees what is in it', (t) =>
  withVm(t, 'split', async ({ served, frontend, driver }) => {
    const last = RAM_BYTES / PAGE_BYTES - 1;
    frontend.ram.fillPage(last, 1);
    await driver.report([
      { gpa: last * PAGE_BYTES, len: 0xfffff000 },
      { gpa: 2 ** 52, len: 0xffffffff },
      { gpa: BUFFER_GPA + 1, len: 3 },
    ]);
    t.ok(frontend.ram.pageIsZero(last));
    t.equal(served.view.balloon.discardedBytesTotal, PAGE_BYTES);
    t.equal(served.saw('pfn-outside-memory').length, 1);
    await bystander.works();
  }),
);
