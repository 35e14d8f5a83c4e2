import fc from 'fast-check';
import t from 'tap';
import { PageRuns } from '../../src/balloon/page-runs.js';

function buffer(pfns: number[]): Uint8Array {
  const bytes = new Uint8Array(4 * pfns.length);
  const view = new DataView(bytes.buffer);
  pfns.forEach((pfn, n) => view.setUint32(4 * n, pfn, true));
  return bytes;
}

function drained(runs: PageRuns): [number, number][] {
  const result: [number, number][] = [];
  runs.drain((first, count) => result.push([first, count]));
  return result;
}

void t.test('runs cover exactly the pages added, are ascending, apart and as few as possible', (t) => {
  const pfn = fc.oneof(fc.nat(200), fc.constantFrom(0xffffffff, 0xfffffffe));
  fc.assert(
    fc.property(fc.array(fc.array(pfn, { maxLength: 300 }), { maxLength: 8 }), (buffers) => {
      const runs = new PageRuns();
      for (const pfns of buffers) runs.add(buffer(pfns));
      const result = drained(runs);
      const covered = result.flatMap(([first, count]) => Array.from({ length: count }, (_, n) => first + n));
      const wanted = [...new Set(buffers.flat())].sort((a, b) => a - b);
      const apart = result.every(([first], n) => {
        const before = result[n - 1];
        return before === undefined || before[0] + before[1] < first;
      });
      return apart && covered.length === wanted.length && covered.every((page, n) => page === wanted[n]);
    }),
  );
  t.end();
});

void t.test('what was drained is forgotten', (t) => {
  const runs = new PageRuns();
  runs.add(buffer([5, 4, 3]));
  t.same(drained(runs), [[3, 3]]);
  t.same(drained(runs), []);
  t.end();
});
