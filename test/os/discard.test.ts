import fc from 'fast-check';
import t, { type Test } from 'tap';
import { discardRanges, probeDiscard, type DiscardMethod } from '../../src/os/discard.js';
import { closeFd } from '../../src/os/fd.js';
import { allocatedBytes, SYSTEM_PAGE_BYTES } from '../../src/os/file.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { HUGE_PAGE_BYTES, reserveHugePages } from '../support/huge-pages.js';
import { openFds, runNode, script } from './inspect.js';

const PAGE = SYSTEM_PAGE_BYTES;
const GIB = 2 ** 30;
const METHODS: DiscardMethod[] = ['process_madvise', 'madvise', 'fallocate'];
const vectored = probeDiscard() === 'process_madvise';

interface Ram {
  fd: number;
  mapping: Mapping;
  /** Which of the pages hold what fill() wrote. */
  filled: () => boolean[];
}

/** Guest memory with a byte in every page. */
function ram(t: Test, pages: number, leadPages = 0, hugePageBytes?: number): Ram {
  const unit = hugePageBytes ?? PAGE;
  const options = hugePageBytes === undefined ? {} : { hugePageBytes };
  const fd = createMemfd('ram', (leadPages + pages) * unit, options);
  const mapping = Mapping.map(fd, leadPages * unit, pages * unit);
  t.teardown(() => {
    mapping.close();
    closeFd(fd);
  });
  const byte = Uint8Array.of(0xa5);
  for (let page = 0; page < pages; page++) mapping.write(page * unit, byte, 0, 1);
  return {
    fd,
    mapping,
    filled: () => {
      const out = new Uint8Array(1);
      return Array.from({ length: pages }, (_, page) => {
        mapping.read(page * unit, out, 0, 1);
        return out[0] === 0xa5;
      });
    },
  };
}

function ranges(pairs: readonly (readonly [number, number])[]): Float64Array {
  return Float64Array.from(pairs.flat());
}

void t.test('the probe finds a method that works, and leaves nothing open', (t) => {
  const { stdout, stderr } = runNode(
    script(
      { discard: 'probeDiscard' },
      `import { readdirSync } from 'node:fs';
       const count = () => readdirSync('/proc/self/fd').length;
       const before = count();
       const method = probeDiscard();
       console.log(method, count() - before - (method === 'process_madvise' ? 1 : 0));`,
    ),
  );
  t.match(stdout, /^(process_madvise|madvise|fallocate) 0$/, { stderr });
  t.equal(stdout.split(' ')[0], probeDiscard());
  t.end();
});

for (const method of METHODS) {
  const skip = method === 'process_madvise' && !vectored ? 'this kernel has no vectored MADV_REMOVE' : false;
  void t.test(method, { skip }, (t) => {
    void t.test('removes the pages from the file, and only those', (t) => {
      const { fd, mapping, filled } = ram(t, 16, 2);
      t.equal(allocatedBytes(fd), 16 * PAGE);
      const given = ranges([
        [PAGE, 2 * PAGE],
        [8 * PAGE, PAGE],
        [15 * PAGE, PAGE],
      ]);
      t.same(discardRanges(mapping, fd, given, 3, method), { completed: 3, error: null });
      t.equal(allocatedBytes(fd), 12 * PAGE);
      t.same(
        filled().flatMap((is, page) => (is ? [] : [page])),
        [1, 2, 8, 15],
      );
      t.end();
    });

    void t.test('takes `count` of the ranges given, also none', (t) => {
      const { fd, mapping } = ram(t, 4);
      const given = ranges([
        [0, PAGE],
        [PAGE, PAGE],
      ]);
      t.same(discardRanges(mapping, fd, given, 0, method), { completed: 0, error: null });
      t.same(discardRanges(mapping, fd, given, 1, method), { completed: 1, error: null });
      t.equal(allocatedBytes(fd), 3 * PAGE);
      t.end();
    });

    void t.test('more ranges than one system call takes', (t) => {
      const { fd, mapping, filled } = ram(t, 6000);
      const given = ranges(Array.from({ length: 3000 }, (_, n) => [2 * n * PAGE, PAGE] as const));
      t.same(discardRanges(mapping, fd, given, 3000, method), { completed: 3000, error: null });
      t.equal(allocatedBytes(fd), 3000 * PAGE);
      t.ok(filled().every((is, page) => is === (page % 2 === 1)));
      t.end();
    });

    for (const bad of [0, 1, 1023, 1024, 1500, 2999]) {
      for (const [what, offset, length] of [
        ['offset', 1, PAGE],
        ['length', 0, PAGE - 1],
      ] as const) {
        void t.test(`stops at range ${bad} if its ${what} is not aligned`, (t) => {
          const { fd, mapping, filled } = ram(t, 3001);
          const given = ranges(Array.from({ length: 3000 }, (_, n) => [n * PAGE, PAGE] as const));
          given[2 * bad] = bad * PAGE + offset;
          given[2 * bad + 1] = length;
          const { completed, error } = discardRanges(mapping, fd, given, 3000, method);
          t.equal(completed, bad);
          t.match(error, { code: 'EINVAL', syscall: method });
          t.ok(
            filled().every((is, page) => is === page >= bad),
            'those before are gone, this one and the rest are whole',
          );
          t.end();
        });
      }
    }

    void t.test('nothing is discarded when a range lies outside', (t) => {
      const { fd, mapping } = ram(t, 4);
      for (const [offset, length] of [
        [4 * PAGE, PAGE],
        [3 * PAGE, 2 * PAGE],
        [-PAGE, PAGE],
        [PAGE, -PAGE],
        [NaN, PAGE],
        [0, Infinity],
        [2 ** 53, PAGE],
      ] as const) {
        const given = ranges([
          [0, PAGE],
          [offset, length],
        ]);
        t.throws(() => discardRanges(mapping, fd, given, 2, method), TypeError, `${offset} + ${length}`);
      }
      t.throws(
        () => discardRanges(mapping, fd, new Float64Array(2), 2, method),
        TypeError,
        'count beyond the array',
      );
      t.equal(allocatedBytes(fd), 4 * PAGE);
      mapping.close();
      t.throws(() => discardRanges(mapping, fd, ranges([[0, PAGE]]), 1, method), TypeError, 'closed');
      t.end();
    });

    void t.test('ranges larger than one system call does', (t) => {
      const size = 5 * GIB;
      const fd = createMemfd('sparse', size);
      const mapping = Mapping.map(fd, 0, size);
      const byte = Uint8Array.of(1);
      const touched = [0, PAGE, 2 * GIB - PAGE, 2 * GIB, 4 * GIB, size - PAGE];
      for (const at of touched) mapping.write(at, byte, 0, 1);
      const given = ranges([
        [0, PAGE],
        [PAGE, 4 * GIB],
        [size - PAGE, PAGE],
      ]);
      t.same(discardRanges(mapping, fd, given, 3, method), { completed: 3, error: null });
      t.equal(allocatedBytes(fd), 0);
      mapping.close();
      closeFd(fd);
      t.end();
    });

    void t.test('huge pages are given back whole', (t) => {
      if (!reserveHugePages(t, 4)) {
        t.pass('hugetlbfs', { skip: 'no huge pages can be reserved here' });
        t.end();
        return;
      }
      const { fd, mapping, filled } = ram(t, 4, 0, HUGE_PAGE_BYTES);
      t.equal(allocatedBytes(fd), 4 * HUGE_PAGE_BYTES);
      const given = ranges([[HUGE_PAGE_BYTES, 2 * HUGE_PAGE_BYTES]]);
      t.same(discardRanges(mapping, fd, given, 1, method), { completed: 1, error: null });
      t.equal(allocatedBytes(fd), 2 * HUGE_PAGE_BYTES);
      t.same(filled(), [true, false, false, true]);
      t.end();
    });

    void t.test('property: what is left is what was not discarded', (t) => {
      const pages = 64;
      const { fd, mapping, filled } = ram(t, pages);
      const one = Uint8Array.of(0xa5);
      const run = fc.tuple(fc.nat(pages - 1), fc.integer({ min: 1, max: 8 }));
      fc.assert(
        fc.property(fc.array(run, { maxLength: 20 }), (runs) => {
          for (let page = 0; page < pages; page++) mapping.write(page * PAGE, one, 0, 1);
          const given = runs.map(([first, count]) => [first, Math.min(count, pages - first)] as const);
          const { completed } = discardRanges(
            mapping,
            fd,
            ranges(given.map(([first, count]) => [first * PAGE, count * PAGE])),
            given.length,
            method,
          );
          const gone = new Set(given.flatMap(([first, n]) => Array.from({ length: n }, (_, k) => first + k)));
          const left = allocatedBytes(fd);
          return (
            completed === given.length &&
            left === (pages - gone.size) * PAGE &&
            filled().every((is, page) => is !== gone.has(page))
          );
        }),
        { numRuns: 50 },
      );
      t.end();
    });
    t.end();
  });
}

void t.test('the file that cannot be punched says so', (t) => {
  const { fd, mapping } = ram(t, 2);
  const closed = createMemfd('closed', PAGE);
  closeFd(closed);
  const before = openFds();
  const { completed, error } = discardRanges(mapping, closed, ranges([[0, PAGE]]), 1, 'fallocate');
  t.equal(completed, 0);
  t.match(error, { code: 'EBADF', syscall: 'fallocate' });
  t.equal(allocatedBytes(fd), 2 * PAGE);
  t.equal(openFds(), before);
  t.end();
});
