// What is compared is what is in the balloon and owes nothing, and what is found is what the file holds of it.
import fc from 'fast-check';
import t from 'tap';
import { discardedRuns, findPresent } from '../../src/memory/comparison.js';
import { GuestMemory } from '../../src/memory/guest-memory.js';
import { BLOCK_PAGES } from '../../src/memory/page-ledger.js';
import { PAGE_BYTES, type GuestRegion } from '../../src/memory/region.js';
import { createMemfd } from '../../src/os/memfd.js';
import { probeResident } from '../../src/os/resident.js';

const PAGES = 3 * BLOCK_PAGES;
const run = fc
  .tuple(fc.nat(PAGES - 1), fc.oneof(fc.nat(8), fc.nat(PAGES)))
  .map(([first, count]) => ({ first, count: Math.min(count, PAGES - first) }));

/** A region that begins in the middle of a block. */
function withRegion<T>(use: (memory: GuestMemory, region: GuestRegion) => T): T {
  const memory = new GuestMemory();
  const filePage = 100;
  const fd = createMemfd('ram', (filePage + PAGES) * PAGE_BYTES);
  try {
    const region = memory.add(
      {
        gpa: 0n,
        sizeBytes: BigInt(PAGES * PAGE_BYTES),
        userAddr: 0n,
        mmapOffset: BigInt(filePage * PAGE_BYTES),
      },
      fd,
    );
    return use(memory, region);
  } finally {
    memory.close();
  }
}

/** All that it finds, whatever happens between its steps. */
function found(memory: GuestMemory, between = (): void => undefined): ReturnType<typeof result> {
  return result(memory, between);
}

function result(memory: GuestMemory, between: () => void) {
  const steps = findPresent(memory, probeResident() ?? 'mincore');
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
    between();
  }
}

const pagesOf = (runs: Iterable<{ first: number; count: number }>): number[] =>
  [...runs].flatMap(({ first, count }) => Array.from({ length: count }, (_, n) => first + n));

void t.test('as a model of sets has it', (t) => {
  fc.assert(
    fc.property(fc.array(run), fc.array(run), fc.array(run), (given, owed, touched) =>
      withRegion((memory, region) => {
        for (const { first, count } of given) region.ledger.inflateKept(first, count);
        for (const { first, count } of owed) region.ledger.inflate(first, count);
        const there = new Set(pagesOf(touched));
        for (const page of there) region.mapping.write(page * PAGE_BYTES, Uint8Array.of(0), 0, 1);
        const pending = new Set(pagesOf(owed));
        const absent = [...new Set(pagesOf(given))]
          .filter((page) => !pending.has(page))
          .sort((a, b) => a - b);
        const runs = pagesOf(discardedRuns(region));
        const present = found(memory) ?? [];
        const bytes = present.reduce((sum, one) => sum + one.bytes, 0);
        const named = new Set(pagesOf(present));
        return (
          runs.join() === absent.join() &&
          bytes === absent.filter((page) => there.has(page)).length * PAGE_BYTES &&
          absent.filter((page) => there.has(page)).every((page) => named.has(page)) &&
          [...named].every((page) => absent.includes(page)) &&
          present.every(
            ({ first, count, block }) =>
              region.ledger.blockOf(first) === block && region.ledger.blockOf(first + count - 1) === block,
          )
        );
      }),
    ),
    { numRuns: 60 },
  );
  t.end();
});

void t.test('it ends when the regions change under it', (t) => {
  withRegion((memory, region) => {
    region.ledger.inflateKept(0, PAGES);
    let removed = false;
    const present = found(memory, () => {
      if (!removed) memory.remove(region.description);
      removed = true;
    });
    t.ok(removed);
    t.equal(present, null);
  });
  t.end();
});
