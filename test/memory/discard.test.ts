// Pages owed become holes of the file: exactly those, and of larger backing pages only what is given up as a whole.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { deflatePages, Discarder } from '../../src/memory/discard.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { PAGE_BYTES, type GuestRegion } from '../../src/memory/region.js';
import { closeFd, duplicateFd } from '../../src/os/fd.js';
import { allocatedBytes } from '../../src/os/file.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { resources } from '../support/bystander.js';
import { reserveHugePages } from '../support/huge-pages.js';

const HUGE_BYTES = 2 * 2 ** 20;
const HUGE = HUGE_BYTES / PAGE_BYTES;

interface Ram {
  memory: GuestMemory;
  regions: GuestRegion[];
  fd: number;
  /** Discards what is owed of these pages, as inflating them does. */
  inflate: (region: GuestRegion, first: number, count: number) => void;
  discarder: Discarder;
}

interface RegionOptions {
  pages: number;
  /** Where in the file, in 4 KiB pages. */
  filePage?: number;
}

/** Regions of one file, in which every page holds something. */
function withRam(
  t: Test,
  regions: readonly RegionOptions[],
  options: { hugePageBytes?: number },
  test: (ram: Ram) => void,
): void {
  // The first one finds out how to discard, and keeps an fd for it.
  const discarder = new Discarder();
  const before = resources();
  const unit = options.hugePageBytes ?? PAGE_BYTES;
  const filePages = Math.max(...regions.map(({ pages, filePage = 0 }) => pages + filePage));
  const fd = createMemfd('ram', Math.ceil((filePages * PAGE_BYTES) / unit) * unit, options);
  const memory = new GuestMemory();
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
    const inflate = (region: GuestRegion, first: number, count: number): void => {
      region.ledger.inflate(first, count);
      discarder.add(region, first, count);
    };
    test({ memory, regions: made, fd, inflate, discarder });
  } finally {
    memory.close();
    closeFd(fd);
  }
  t.same(resources(), before);
}

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

void t.test('pages are discarded, and owe nothing afterwards', (t) => {
  withRam(t, [{ pages: 100 }, { pages: 50, filePage: 100 }], {}, ({ regions, fd, inflate, discarder }) => {
    const [a, b] = regions;
    if (a === undefined || b === undefined) throw new Error('two regions');
    inflate(a, 10, 5);
    inflate(b, 0, 50);
    inflate(a, 99, 1);
    t.same(discarder.flush(), { discardedBytes: 56 * PAGE_BYTES, failedRanges: 0, error: null });
    t.equal(allocatedBytes(fd), 94 * PAGE_BYTES);
    t.same([a.ledger.pending.size, b.ledger.pending.size], [0, 0]);
    t.same([a.ledger.ballooned.size, b.ledger.ballooned.size], [6, 50]);
    t.same(discarder.flush(), { discardedBytes: 0, failedRanges: 0, error: null }, 'once');
  });
  t.end();
});

void t.test('more ranges than go to the kernel at once', (t) => {
  withRam(t, [{ pages: 10_000 }], {}, ({ regions, fd, inflate, discarder }) => {
    const region = only(regions);
    for (let page = 0; page < 10_000; page += 2) inflate(region, page, 1);
    t.equal(discarder.flush().discardedBytes, 5000 * PAGE_BYTES);
    t.equal(allocatedBytes(fd), 5000 * PAGE_BYTES);
    t.ok(filled(region).every((page) => page % 2 === 1));
  });
  t.end();
});

void t.test('ranges that fail keep owing, and hold up no others', (t) => {
  withRam(t, [{ pages: 100 }], {}, ({ regions, discarder }) => {
    const region = only(regions);
    region.ledger.inflate(0, 20);
    // The kernel refuses what is not aligned to its pages.
    const odd = seenAs(region, { file: { ...region.file, pageBytes: 512 } });
    for (const [offset, lenBytes] of [
      [0, 2 * PAGE_BYTES],
      [3 * PAGE_BYTES + 512, PAGE_BYTES],
      [6 * PAGE_BYTES, PAGE_BYTES],
      [8 * PAGE_BYTES + 512, 512],
      [10 * PAGE_BYTES, 2 * PAGE_BYTES],
    ] as const) {
      discarder.addReported(odd, offset, lenBytes);
    }
    const { error, ...counts } = discarder.flush();
    t.same(counts, { discardedBytes: 5 * PAGE_BYTES, failedRanges: 2 });
    t.equal(error?.code, 'EINVAL');
    t.equal(region.ledger.pending.size, 15);
    t.notOk([0, 1, 6, 10, 11].some((page) => region.ledger.pending.has(page)));
    t.equal(filled(region).length, 95);
    t.same(discarder.flush(), { discardedBytes: 0, failedRanges: 0, error: null });
  });
  t.end();
});

void t.test('reported ranges: whole pages inside, whatever the ledger says', (t) => {
  withRam(t, [{ pages: 16, filePage: 3 }], {}, ({ regions, discarder }) => {
    const region = only(regions);
    discarder.addReported(region, 1, 4 * PAGE_BYTES);
    discarder.addReported(region, 8 * PAGE_BYTES, PAGE_BYTES);
    discarder.addReported(region, 12 * PAGE_BYTES - 1, 2);
    discarder.addReported(region, 10 * PAGE_BYTES, 0);
    t.equal(discarder.flush().discardedBytes, 4 * PAGE_BYTES);
    t.same(filled(region), [0, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]);
    t.equal(region.ledger.ballooned.size, 0);
  });
  t.end();
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
      if (mates.length < UNIT || !mates.every((mate) => this.ballooned.has(mate))) continue;
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
  kind: fc.constantFrom('inflate', 'inflate', 'deflate', 'inhibited', 'allowed'),
  first: fc.nat(MODEL_PAGES - 1),
  count: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(1)),
});

void t.test('larger backing pages go as a whole, whatever the order', (t) => {
  const fd = createMemfd('ram', 6 * UNIT * PAGE_BYTES);
  const before = resources();
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) => {
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
        const discarder = new Discarder();
        const model = new Model();
        fill(region, 0, MODEL_PAGES);
        return steps.every(({ kind, first, count: wanted }) => {
          const count = Math.min(wanted, MODEL_PAGES - first);
          switch (kind) {
            case 'inflate':
              region.ledger.inflate(first, count);
              discarder.add(region, first, count);
              model.inflate(first, count);
              model.discardIn(first, count);
              break;
            case 'inhibited':
              region.ledger.inflate(first, count);
              model.inflate(first, count);
              break;
            case 'allowed':
              for (const run of region.ledger.pending.runs()) discarder.add(region, run.first, run.count);
              for (const page of [...model.pending]) model.discardIn(page, 1);
              break;
            default:
              if (deflatePages(region, first, count) !== model.deflate(first, count)) return false;
              // The guest writes what it took back.
              fill(region, first, count);
          }
          discarder.flush();
          return (
            isDeepStrictEqual(filled(region), model.filled()) &&
            isDeepStrictEqual(
              pagesOf(region.ledger.pending),
              [...model.pending].sort((a, b) => a - b),
            ) &&
            region.ledger.ballooned.size === model.ballooned.size
          );
        });
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

void t.test('hugetlbfs: a huge page is freed with the last of its 512 pages', (t) => {
  t.ok(reserveHugePages(t, 3), 'the host has 3 huge pages to lend');
  // The region begins in the middle of the first huge page and holds the second and third as a whole.
  const region = { pages: 2.5 * HUGE, filePage: HUGE / 2 };
  withRam(t, [region], { hugePageBytes: HUGE_BYTES }, ({ regions, fd, inflate, discarder }) => {
    const region = only(regions);
    const second = HUGE / 2;
    t.equal(region.file.kind, 'hugetlbfs');
    t.equal(allocatedBytes(fd), 3 * HUGE_BYTES);
    inflate(region, 0, HUGE / 2);
    for (let n = 0; n < HUGE - 1; n++) inflate(region, second + ((n * 255) % HUGE), 1);
    t.same(discarder.flush(), { discardedBytes: 0, failedRanges: 0, error: null });
    t.equal(allocatedBytes(fd), 3 * HUGE_BYTES);
    t.equal(filled(region).length, 2.5 * HUGE, 'nothing was zeroed before its time');
    inflate(region, second + (((HUGE - 1) * 255) % HUGE), 1);
    t.equal(discarder.flush().discardedBytes, HUGE_BYTES);
    t.equal(allocatedBytes(fd), 2 * HUGE_BYTES);
    t.equal(region.ledger.pending.size, HUGE / 2, 'the half that shares its huge page with others');

    t.equal(deflatePages(region, second + 7, 1), 1);
    fill(region, second + 7, 1);
    t.equal(allocatedBytes(fd), 3 * HUGE_BYTES, 'the touch brought all of it back');
    t.equal(region.ledger.pending.size, HUGE / 2 + HUGE - 1, 'so the rest is owed again');
    inflate(region, second + 7, 1);
    t.equal(discarder.flush().discardedBytes, HUGE_BYTES);
    t.equal(allocatedBytes(fd), 2 * HUGE_BYTES);

    const third = second + HUGE;
    discarder.addReported(region, (third - 1) * PAGE_BYTES, HUGE_BYTES);
    t.equal(discarder.flush().discardedBytes, 0, 'not whole');
    discarder.addReported(region, (third - 1) * PAGE_BYTES, HUGE_BYTES + PAGE_BYTES);
    t.equal(discarder.flush().discardedBytes, HUGE_BYTES);
    t.equal(allocatedBytes(fd), HUGE_BYTES);
  });
  t.end();
});
