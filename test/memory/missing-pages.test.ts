// Which backing pages a range of a region touches, and holds as a whole, wherever the region lies in its file.
import fc from 'fast-check';
import t from 'tap';
import { MissingPages } from '../../src/memory/missing-pages.js';
import { StateError, StateFile } from '../../src/memory/state-file.js';

const PAGE = 4096;
/** A backing page of eight pages; the arithmetic knows no other size than what it is told. */
const UNIT = 8 * PAGE;

const runs = ({ units }: MissingPages): number[] =>
  [...units.runs()].flatMap(({ first, count }) => Array.from({ length: count }, (_, n) => first + n));

void t.test('the backing pages of a range', (t) => {
  const place = fc.record({
    lead: fc.nat(7),
    pages: fc.integer({ min: 1, max: 64 }),
    first: fc.nat(63),
    count: fc.integer({ min: 1, max: 64 }),
  });
  fc.assert(
    fc.property(place, ({ lead, pages, first: at, count: wanted }) => {
      const first = at % pages;
      const count = Math.min(wanted, pages - first);
      const state = StateFile.create();
      const where = { lead: lead * PAGE, sizeBytes: pages * PAGE, pageBytes: UNIT };
      const touched = new MissingPages(state, where, null);
      const whole = new MissingPages(state, where, null);
      touched.add(first * PAGE, count * PAGE);
      whole.addWhole(first * PAGE, count * PAGE);
      // Page by page: the one holds those with any page of the range, the other those with eight.
      const pagesOf = new Map<number, number>();
      for (let page = first; page < first + count; page++) {
        const unit = Math.floor((lead + page) / 8);
        pagesOf.set(unit, (pagesOf.get(unit) ?? 0) + 1);
      }
      const agree =
        runs(touched).join() === [...pagesOf.keys()].join() &&
        runs(whole).join() === [...pagesOf].flatMap(([unit, own]) => (own === 8 ? [unit] : [])).join() &&
        touched.bytes === pagesOf.size * UNIT &&
        [...pagesOf.keys()].every((unit) => {
          const { offset, lenBytes, whole } = touched.inside(unit);
          const inside = offset >= 0 && lenBytes > 0 && offset + lenBytes <= pages * PAGE;
          return (
            inside && whole === (lenBytes === UNIT) && Math.floor((lead * PAGE + offset) / UNIT) === unit
          );
        });
      touched.close();
      whole.close();
      state.close();
      return agree;
    }),
  );
  t.end();
});

void t.test('they outlive the process', (t) => {
  const state = StateFile.create();
  const where = { lead: 0, sizeBytes: 100 * UNIT, pageBytes: UNIT };
  const before = new MissingPages(state, where, null);
  before.add(3 * UNIT, 2 * UNIT);
  before.add(99 * UNIT, PAGE);
  before.letGo();
  const next = StateFile.open(state.fd);
  const after = new MissingPages(next, where, before.area);
  t.same(runs(after), [3, 4, 99]);
  const other = { ...where, sizeBytes: 40_000 * UNIT };
  t.throws(() => new MissingPages(next, other, before.area), StateError, 'of another region');
  after.close();
  next.close();
  t.end();
});
