// Pages owed become holes of the file: exactly those, and of larger backing pages only what is given up as a whole.
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { Discarder, type Delay, type DiscardResult } from '../../src/memory/discard.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { deflatePages } from '../../src/memory/owed-pages.js';
import { PageLedger } from '../../src/memory/page-ledger.js';
import { PAGE_BYTES, type GuestRegion } from '../../src/memory/region.js';
import { probeDiscard } from '../../src/os/discard.js';
import { closeFd, duplicateFd } from '../../src/os/fd.js';
import { allocatedBytes } from '../../src/os/file.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { resources } from '../support/bystander.js';
import { reserveHugePages } from '../support/huge-pages.js';

const HUGE_BYTES = 2 * 2 ** 20;
const HUGE = HUGE_BYTES / PAGE_BYTES;

/** Nothing happens but by being asked for. */
const NEVER: Delay = { quietMs: 3_600_000, longestMs: 3_600_000 };

interface Ram {
  memory: GuestMemory;
  regions: GuestRegion[];
  fd: number;
  discarder: Discarder;
  /** Of each batch. */
  results: DiscardResult[];
}

interface RegionOptions {
  pages: number;
  /** Where in the file, in 4 KiB pages. */
  filePage?: number;
}

/** Regions of one file, in which every page holds something, and a discarder that runs. */
async function withRam(
  t: Test,
  regions: readonly RegionOptions[],
  options: { hugePageBytes?: number; delay?: Delay },
  test: (ram: Ram) => Promise<void>,
): Promise<void> {
  // The first one finds out how to discard, and keeps an fd for it.
  probeDiscard();
  const before = resources();
  const unit = options.hugePageBytes ?? PAGE_BYTES;
  const filePages = Math.max(...regions.map(({ pages, filePage = 0 }) => pages + filePage));
  const fd = createMemfd('ram', Math.ceil((filePages * PAGE_BYTES) / unit) * unit, options);
  const memory = new GuestMemory();
  const results: DiscardResult[] = [];
  const discarder = new Discarder(memory, options.delay ?? NEVER, (result) => results.push(result));
  try {
    const made = regions.map(({ pages, filePage = 0 }, n) =>
      memory.add(
        {
          gpa: BigInt(n) << 36n,
          sizeBytes: BigInt(pages * PAGE_BYTES),
          userAddr: BigInt(n + 1) << 36n,
          mmapOffset: BigInt(filePage * PAGE_BYTES),
        },
        duplicateFd(fd),
      ),
    );
    for (const region of made) fill(region, 0, region.sizeBytes / PAGE_BYTES);
    discarder.start();
    await test({ memory, regions: made, fd, discarder, results });
  } finally {
    discarder.stop();
    await idle(discarder);
    memory.close();
    closeFd(fd);
  }
  t.same(resources(), before);
}

function idle(discarder: Discarder): Promise<void> {
  return new Promise((resolve) => {
    if (discarder.interrupt(resolve)) resolve();
  });
}

/** Tries all that is owed, or reported; resolves with what came of it. */
async function tried({
  discarder,
  results,
}: Pick<Ram, 'discarder' | 'results'>): Promise<Omit<DiscardResult, 'seconds'>> {
  await new Promise<void>((resolve) => {
    if (discarder.afterReports(resolve)) resolve();
  });
  await new Promise<void>((resolve) => {
    discarder.afterSweep(resolve);
  });
  return total(results.splice(0));
}

function total(results: readonly DiscardResult[]): Omit<DiscardResult, 'seconds'> {
  return {
    discardedBytes: results.reduce((sum, { discardedBytes }) => sum + discardedBytes, 0),
    failedRanges: results.reduce((sum, { failedRanges }) => sum + failedRanges, 0),
    error: results.find(({ error }) => error !== null)?.error ?? null,
  };
}

/** Lets whatever would happen happen. */
const moment = (): Promise<void> => sleep(20);

function fill(region: GuestRegion, first: number, count: number): void {
  for (let page = first; page < first + count; page++) {
    region.mapping.write(region.lead + page * PAGE_BYTES, Uint8Array.of(1), 0, 1);
  }
}

/** Pages that hold what was filled in. */
function filled(region: GuestRegion): number[] {
  const byte = new Uint8Array(1);
  return Array.from({ length: region.sizeBytes / PAGE_BYTES }, (_, page) => page).filter((page) => {
    region.mapping.read(region.lead + page * PAGE_BYTES, byte, 0, 1);
    return byte[0] === 1;
  });
}

/** The same region with something else known of it. */
function seenAs(region: GuestRegion, changes: Partial<GuestRegion>): GuestRegion {
  const own = Object.fromEntries(Object.entries(changes).map(([key, value]) => [key, { value }]));
  return Object.create(region, own) as GuestRegion;
}

function only<T>([first]: readonly T[]): T {
  if (first === undefined) throw new Error('there is none');
  return first;
}

void t.test('pages are discarded, and owe nothing afterwards', async (t) => {
  await withRam(t, [{ pages: 100 }, { pages: 50, filePage: 100 }], {}, async (ram) => {
    const [a, b] = ram.regions;
    if (a === undefined || b === undefined) throw new Error('two regions');
    a.ledger.inflate(10, 5);
    b.ledger.inflate(0, 50);
    a.ledger.inflate(99, 1);
    t.same(await tried(ram), { discardedBytes: 56 * PAGE_BYTES, failedRanges: 0, error: null });
    t.equal(allocatedBytes(ram.fd), 94 * PAGE_BYTES);
    t.same([a.ledger.pending.size, b.ledger.pending.size], [0, 0]);
    t.same([a.ledger.ballooned.size, b.ledger.ballooned.size], [6, 50]);
    t.same(await tried(ram), { discardedBytes: 0, failedRanges: 0, error: null }, 'once');
  });
});

void t.test('more ranges than go to a thread at once', async (t) => {
  await withRam(t, [{ pages: 10_000 }], {}, async (ram) => {
    const region = only(ram.regions);
    for (let page = 0; page < 10_000; page += 2) region.ledger.inflate(page, 1);
    t.equal((await tried(ram)).discardedBytes, 5000 * PAGE_BYTES);
    t.equal(allocatedBytes(ram.fd), 5000 * PAGE_BYTES);
    t.ok(filled(region).every((page) => page % 2 === 1));
  });
});

void t.test('discards wait to be merged, but not for long', async (t) => {
  await withRam(t, [{ pages: 300 }], { delay: { quietMs: 5, longestMs: 40 } }, async (ram) => {
    const region = only(ram.regions);
    for (let page = 0; page < 100; page++) {
      region.ledger.inflate((page * 7) % 100, 1);
      ram.discarder.owe(1);
    }
    t.equal(ram.results.length, 0);
    while (ram.results.length === 0) await sleep(1);
    t.same(total(ram.results), { discardedBytes: 100 * PAGE_BYTES, failedRanges: 0, error: null });
    t.equal(ram.results.length, 1, 'all of them at once');
    for (let page = 100; ram.results.length === 1; page++) {
      if (page === 300) throw new Error('additions without a pause put the discard off for ever');
      region.ledger.inflate(page, 1);
      ram.discarder.owe(1);
      await sleep(1);
    }
  });
});

void t.test('blocks of 2 MiB go as soon as four of them are in the balloon as a whole', async (t) => {
  // The region begins in the middle of a block of the file.
  await withRam(t, [{ pages: 6 * HUGE, filePage: HUGE / 2 }], {}, async (ram) => {
    const region = only(ram.regions);
    const give = (first: number, count: number): void => {
      region.ledger.inflate(first, count);
      ram.discarder.owe(count);
    };
    give(HUGE / 2 + 1, 4 * HUGE + 5);
    await moment();
    t.equal(ram.results.length, 0);
    give(HUGE / 2, 1);
    while (ram.results.length === 0) await sleep(1);
    t.equal(total(ram.results).discardedBytes, 4 * HUGE_BYTES);
    t.same(
      [...region.ledger.pending.runs()],
      [{ first: HUGE / 2 + 4 * HUGE, count: 6 }],
      'the next block is not complete',
    );
    t.equal(ram.discarder.behindBytes, 6 * PAGE_BYTES);
  });
});

void t.test(
  'what is interrupted is not lost, and nothing new begins before the caller is done',
  async (t) => {
    await withRam(t, [{ pages: 20_000 }], {}, async (ram) => {
      const { discarder, results } = ram;
      const region = only(ram.regions);
      for (let page = 0; page < 20_000; page += 2) region.ledger.inflate(page, 1);
      const swept = { value: false };
      discarder.afterSweep(() => (swept.value = true));
      t.ok(discarder.touches(0, 0));
      t.notOk(discarder.touches(19_999, 30_000), 'not in this batch');
      let atIdle = -1;
      t.notOk(
        discarder.interrupt(() => {
          // The driver takes everything back that is not gone yet, and a little that is.
          atIdle = region.ledger.pending.size;
          t.equal(deflatePages(region, 0, 10_000, true), 5000);
          t.ok(discarder.interrupt(() => t.fail('there is nothing to wait for')));
          t.notOk(swept.value);
        }),
      );
      t.equal(atIdle, -1);
      while (!swept.value) await sleep(1);
      t.ok(atIdle > 10_000 - 2048 - 1, `${atIdle} were still owed`);
      t.equal(region.ledger.pending.size, 0);
      t.equal(total(results).discardedBytes, (5000 + 10_000 - atIdle) * PAGE_BYTES);
      const left = filled(region);
      t.equal(left.length, 20_000 - (5000 + 10_000 - atIdle));
    });
  },
);

void t.test('stopped: nothing is begun, and nobody waits for ever', async (t) => {
  await withRam(t, [{ pages: 1000 }], { delay: { quietMs: 1, longestMs: 1 } }, async (ram) => {
    const { discarder, results } = ram;
    const region = only(ram.regions);
    region.ledger.inflate(0, 10);
    discarder.owe(10);
    discarder.report(region, 500 * PAGE_BYTES, PAGE_BYTES);
    let released = 0;
    discarder.stop();
    discarder.afterSweep(() => released++);
    discarder.report(region, 600 * PAGE_BYTES, PAGE_BYTES);
    t.notOk(discarder.afterReports(() => released++));
    await moment();
    t.equal(results.length, 0);
    t.equal(released, 0);
    discarder.stop();
    t.equal(released, 2);
    t.equal(filled(region).length, 1000);
    discarder.start();
    while (region.ledger.pending.size > 0) await sleep(1);
    t.equal(filled(region).length, 990, 'what is owed is made up for, what was reported is not');
  });
});

void t.test(
  'what fails keeps owing and holds up no others; it is tried again at the next start',
  async (t) => {
    await withRam(t, [{ pages: 3000 }], {}, async (ram) => {
      const [real] = ram.regions;
      if (real === undefined) throw new Error('no region');
      // The kernel refuses what is not aligned to its pages.
      const odd = seenAs(real, { lead: 512 });
      let regions = [odd, seenAs(real, { ledger: new PageLedger(ram.memory.state, 3000) })];
      const memory = {
        get regions() {
          return regions;
        },
      };
      const results: DiscardResult[] = [];
      const discarder = new Discarder(memory, NEVER, (result) => results.push(result));
      const both = { ...ram, discarder, results };
      discarder.start();
      regions[0]?.ledger.inflate(0, 3);
      regions[1]?.ledger.inflate(10, 2);
      const { error, ...counts } = await tried(both);
      t.same(counts, { discardedBytes: 2 * PAGE_BYTES, failedRanges: 1 });
      t.equal(error?.code, 'EINVAL');
      t.same(
        regions.map(({ ledger }) => ledger.pending.size),
        [3, 0],
      );
      t.same((await tried(both)).failedRanges, 0, 'such an error does not go away by itself');
      regions[1]?.ledger.close();
      regions = [seenAs(real, {})];
      discarder.start();
      t.equal((await tried(both)).discardedBytes, 3 * PAGE_BYTES);
      discarder.stop();
    });
  },
);

void t.test('reported ranges: whole pages inside, whatever the ledger says', async (t) => {
  await withRam(t, [{ pages: 16, filePage: 3 }], {}, async (ram) => {
    const region = only(ram.regions);
    ram.discarder.report(region, 1, 4 * PAGE_BYTES);
    ram.discarder.report(region, 8 * PAGE_BYTES, PAGE_BYTES);
    ram.discarder.report(region, 12 * PAGE_BYTES - 1, 2);
    ram.discarder.report(region, 10 * PAGE_BYTES, 0);
    t.equal((await tried(ram)).discardedBytes, 4 * PAGE_BYTES);
    t.same(filled(region), [0, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]);
    t.equal(region.ledger.ballooned.size, 0);
  });
});

void t.test('reports are answered in their order, and also when they fail', async (t) => {
  await withRam(t, [{ pages: 8000 }], {}, async (ram) => {
    const region = only(ram.regions);
    const odd = seenAs(region, { file: { ...region.file, pageBytes: 512 } });
    const order: string[] = [];
    const answered = [
      ['many', region, Array.from({ length: 3000 }, (_, n) => 2 * n)],
      ['failing', odd, [6500.125]],
      ['one', region, [7000]],
    ] as const;
    for (const [name, where, pages] of answered) {
      for (const page of pages) ram.discarder.report(where, page * PAGE_BYTES, PAGE_BYTES);
      t.notOk(ram.discarder.afterReports(() => order.push(name)));
    }
    const { error, ...counts } = await tried(ram);
    t.same(counts, { discardedBytes: 3001 * PAGE_BYTES, failedRanges: 1 });
    t.equal(error?.code, 'EINVAL');
    t.same(order, ['many', 'failing', 'one']);
    t.equal(filled(region).length, 8000 - 3001);
  });
});

/** As on a host with pages of 64 KiB; the region begins and ends in the middle of one. */
const UNIT = 16;
const LEAD = 5;
const MODEL_PAGES = 16 * 5 - LEAD + 7;

function pagesOf(set: GuestRegion['ledger']['pending']): number[] {
  return [...set.runs()].flatMap(({ first, count }) => Array.from({ length: count }, (_, n) => first + n));
}

/** The same, page by page. */
class Model {
  readonly ballooned = new Set<number>();
  readonly pending = new Set<number>();
  readonly #gone = new Set<number>();

  inflate(first: number, count: number): void {
    for (let page = first; page < first + count; page++) {
      this.ballooned.add(page);
      this.pending.add(page);
    }
  }

  discardIn(first: number, count: number): void {
    for (let page = first; page < first + count; page++) {
      const mates = this.#mates(page);
      if (mates.length < UNIT || !mates.every((mate) => this.pending.has(mate))) continue;
      for (const mate of mates) {
        this.pending.delete(mate);
        this.#gone.add(mate);
      }
    }
  }

  deflate(first: number, count: number): number {
    let removed = 0;
    for (let page = first; page < first + count; page++) {
      this.#gone.delete(page);
      this.pending.delete(page);
      if (!this.ballooned.delete(page)) continue;
      removed++;
      for (const mate of this.#mates(page)) if (this.ballooned.has(mate)) this.pending.add(mate);
    }
    return removed;
  }

  filled(): number[] {
    return Array.from({ length: MODEL_PAGES }, (_, page) => page).filter((page) => !this.#gone.has(page));
  }

  /** The pages of the region in the same backing page. */
  #mates(page: number): number[] {
    const from = Math.floor((page + LEAD) / UNIT) * UNIT - LEAD;
    return Array.from({ length: UNIT }, (_, n) => from + n).filter((mate) => mate >= 0 && mate < MODEL_PAGES);
  }
}

const step = fc.record({
  kind: fc.constantFrom('inflate', 'inflate', 'deflate', 'behind', 'allowed'),
  first: fc.nat(MODEL_PAGES - 1),
  count: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(1)),
});

void t.test('larger backing pages go as a whole, whatever the order', async (t) => {
  const fd = createMemfd('ram', 6 * UNIT * PAGE_BYTES);
  const before = resources();
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      const memory = new GuestMemory();
      const mapping = Mapping.map(fd, 0, 6 * UNIT * PAGE_BYTES);
      try {
        const plain = memory.add(
          {
            gpa: 0n,
            sizeBytes: BigInt(MODEL_PAGES * PAGE_BYTES),
            userAddr: 0n,
            mmapOffset: BigInt(LEAD * PAGE_BYTES),
          },
          duplicateFd(fd),
        );
        const file = { ...plain.file, pageBytes: UNIT * PAGE_BYTES };
        const region = seenAs(plain, { file, mapping, lead: LEAD * PAGE_BYTES });
        const results: DiscardResult[] = [];
        const discarder = new Discarder({ regions: [region] }, NEVER, (result) => results.push(result));
        discarder.start();
        const model = new Model();
        fill(region, 0, MODEL_PAGES);
        for (const { kind, first, count: wanted } of steps) {
          const count = Math.min(wanted, MODEL_PAGES - first);
          switch (kind) {
            case 'inflate':
              region.ledger.inflate(first, count);
              await tried({ discarder, results });
              model.inflate(first, count);
              for (const page of [...model.pending]) model.discardIn(page, 1);
              break;
            case 'behind':
              region.ledger.inflate(first, count);
              model.inflate(first, count);
              break;
            case 'allowed':
              region.ledger.refreshAll();
              await tried({ discarder, results });
              for (const page of [...model.pending]) model.discardIn(page, 1);
              break;
            default:
              if (deflatePages(region, first, count, true) !== model.deflate(first, count)) return false;
              // The guest writes what it took back.
              fill(region, first, count);
          }
          const agree =
            isDeepStrictEqual(filled(region), model.filled()) &&
            isDeepStrictEqual(
              pagesOf(region.ledger.pending),
              [...model.pending].sort((a, b) => a - b),
            ) &&
            region.ledger.ballooned.size === model.ballooned.size;
          if (!agree) return false;
        }
        return true;
      } finally {
        mapping.close();
        memory.close();
      }
    }),
    { numRuns: 60 },
  );
  t.same(resources(), before);
  closeFd(fd);
  t.end();
});

void t.test('hugetlbfs: a huge page is freed with the last of its 512 pages', async (t) => {
  t.ok(reserveHugePages(t, 3), 'the host has 3 huge pages to lend');
  // The region begins in the middle of the first huge page and holds the second and third as a whole.
  const region = { pages: 2.5 * HUGE, filePage: HUGE / 2 };
  await withRam(t, [region], { hugePageBytes: HUGE_BYTES }, async (ram) => {
    const { fd, discarder } = ram;
    const region = only(ram.regions);
    const inflate = (first: number, count: number): void => {
      region.ledger.inflate(first, count);
    };
    const second = HUGE / 2;
    t.equal(region.file.kind, 'hugetlbfs');
    t.equal(allocatedBytes(fd), 3 * HUGE_BYTES);
    inflate(0, HUGE / 2);
    for (let n = 0; n < HUGE - 1; n++) inflate(second + ((n * 255) % HUGE), 1);
    t.same(await tried(ram), { discardedBytes: 0, failedRanges: 0, error: null });
    t.equal(allocatedBytes(fd), 3 * HUGE_BYTES);
    t.equal(filled(region).length, 2.5 * HUGE, 'nothing was zeroed before its time');
    inflate(second + (((HUGE - 1) * 255) % HUGE), 1);
    t.equal((await tried(ram)).discardedBytes, HUGE_BYTES);
    t.equal(allocatedBytes(fd), 2 * HUGE_BYTES);
    t.equal(region.ledger.pending.size, HUGE / 2, 'the half that shares its huge page with others');

    t.equal(deflatePages(region, second + 7, 1, true), 1);
    fill(region, second + 7, 1);
    t.equal(allocatedBytes(fd), 3 * HUGE_BYTES, 'the touch brought all of it back');
    t.equal(region.ledger.pending.size, HUGE / 2 + HUGE - 1, 'so the rest is owed again');
    inflate(second + 7, 1);
    t.equal((await tried(ram)).discardedBytes, HUGE_BYTES);
    t.equal(allocatedBytes(fd), 2 * HUGE_BYTES);

    const third = second + HUGE;
    discarder.report(region, (third - 1) * PAGE_BYTES, HUGE_BYTES);
    t.equal((await tried(ram)).discardedBytes, 0, 'not whole');
    discarder.report(region, (third - 1) * PAGE_BYTES, HUGE_BYTES + PAGE_BYTES);
    t.equal((await tried(ram)).discardedBytes, HUGE_BYTES);
    t.equal(allocatedBytes(fd), HUGE_BYTES);
  });
});
