import fc from 'fast-check';
import t from 'tap';
import { StateFile } from '../../src/memory/state-file.js';
import { PageLedger } from '../../src/memory/page-ledger.js';
import { resources } from '../support/bystander.js';

const PAGES = 200;
const step = fc.record({
  kind: fc.constantFrom('inflate', 'deflate', 'discard', 'clear'),
  first: fc.nat(PAGES - 1),
  count: fc.integer({ min: 1, max: 70 }),
});

void t.test('a page that owes a discard is in the balloon, whatever happens', (t) => {
  const before = resources();
  const state = StateFile.create();
  const ledger = new PageLedger(state, PAGES);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      ledger.clear();
      const ballooned = new Set<number>();
      const pending = new Set<number>();
      return steps.every(({ kind, first, count }) => {
        const pages = Array.from({ length: Math.min(count, PAGES - first) }, (_, n) => first + n);
        const had = pages.filter((page) => ballooned.has(page)).length;
        switch (kind) {
          case 'inflate':
            if (ledger.inflate(first, pages.length) !== pages.length - had) return false;
            for (const page of pages) {
              ballooned.add(page);
              pending.add(page);
            }
            break;
          case 'deflate':
            if (ledger.deflate(first, pages.length) !== had) return false;
            for (const page of pages) {
              ballooned.delete(page);
              pending.delete(page);
            }
            break;
          case 'discard':
            ledger.pending.remove(first, pages.length);
            for (const page of pages) pending.delete(page);
            break;
          default:
            ledger.clear();
            ballooned.clear();
            pending.clear();
        }
        return (
          ledger.ballooned.size === ballooned.size &&
          ledger.pending.size === pending.size &&
          [...ledger.pending.runs()].every((run) => ledger.ballooned.covers(run.first, run.count)) &&
          [...pending].every((page) => ledger.pending.has(page))
        );
      });
    }),
  );
  ledger.close();
  state.close();
  t.same(resources(), before);
  t.end();
});

void t.test('of one page, and of a region of 16 TiB', (t) => {
  for (const pages of [1, 2 ** 32]) {
    const state = StateFile.create();
    const ledger = new PageLedger(state, pages);
    t.equal(ledger.inflate(pages - 1, 1), 1);
    t.equal(ledger.inflate(pages - 1, 1), 0);
    t.ok(ledger.pending.has(pages - 1));
    t.same([...ledger.ballooned.runs(Math.max(0, pages - 1000))], [{ first: pages - 1, count: 1 }]);
    t.equal(ledger.deflate(pages - 1, 1), 1);
    t.equal(ledger.pending.size, 0);
    ledger.close();
    state.close();
  }
  t.end();
});
