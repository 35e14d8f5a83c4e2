import fc from 'fast-check';
import t from 'tap';
import { PageSet } from '../../src/memory/page-set.js';

/** More than two blocks of the index, the last of them cut short. */
const PAGES = 1300;

function empty(): PageSet {
  return new PageSet(new ArrayBuffer(PageSet.bytesFor(PAGES)), PAGES);
}

const range = fc
  .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: 700 }))
  .map(([first, count]) => ({ first, count: Math.min(count, PAGES - first) }));
const step = fc.record({ kind: fc.constantFrom('add', 'remove', 'clear'), range });

void t.test('a page set agrees with a set of numbers after any adds and removes', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), range, (steps, probe) => {
      const pages = empty();
      const model = new Set<number>();
      for (const { kind, range } of steps) {
        if (kind === 'clear') {
          pages.clear();
          model.clear();
          continue;
        }
        const before = model.size;
        for (let page = range.first; page < range.first + range.count; page++) {
          if (kind === 'add') model.add(page);
          else model.delete(page);
        }
        const changed =
          kind === 'add' ? pages.add(range.first, range.count) : pages.remove(range.first, range.count);
        if (changed !== Math.abs(model.size - before) || pages.size !== model.size) return false;
      }
      const fromRuns = [...pages.runs()].flatMap(({ first, count }) =>
        Array.from({ length: count }, (_, n) => first + n),
      );
      const wanted = Array.from({ length: probe.count }, (_, n) => probe.first + n);
      const within = [...pages.runs(probe.first, probe.first + probe.count)];
      return (
        fromRuns.every((page) => model.has(page)) &&
        fromRuns.length === model.size &&
        pages.covers(probe.first, probe.count) === wanted.every((page) => model.has(page)) &&
        wanted.every((page) => pages.has(page) === model.has(page)) &&
        within.reduce((sum, run) => sum + run.count, 0) === wanted.filter((page) => model.has(page)).length
      );
    }),
  );
  t.end();
});

void t.test('runs are maximal and ascending', (t) => {
  const pages = empty();
  pages.add(31, 2);
  pages.add(64, 64);
  pages.add(128, 1);
  t.same(
    [...pages.runs()],
    [
      { first: 31, count: 2 },
      { first: 64, count: 65 },
    ],
  );
  pages.clear();
  t.equal(pages.size, 0);
  t.same([...pages.runs()], []);
  t.end();
});
