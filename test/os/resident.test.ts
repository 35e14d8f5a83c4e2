import { ftruncateSync } from 'node:fs';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { allocatedBytes, SYSTEM_PAGE_BYTES as PAGE } from '../../src/os/file.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import { probeResident, readsAsZeros, residentBytes, type ResidentMethod } from '../../src/os/resident.js';

const METHODS: readonly ResidentMethod[] = ['cachestat', 'mincore'];
const PAGES = 64;
/** A mapping need not begin where its file does. */
const LEAD = 3;

function memory(t: Test): { fd: number; mapping: Mapping; write: (page: number, byte?: number) => void } {
  const fd = createMemfd('resident', (LEAD + PAGES) * PAGE);
  const mapping = Mapping.map(fd, LEAD * PAGE, PAGES * PAGE);
  t.teardown(() => {
    mapping.close();
    closeFd(fd);
  });
  return { fd, mapping, write: (page, byte = 1) => mapping.write(page * PAGE, Uint8Array.of(byte), 0, 1) };
}

/** Linux 6.5 has both. */
const usable = METHODS.slice(probeResident() === 'cachestat' ? 0 : 1);

void t.test('this kernel can say what a file holds', (t) => {
  t.not(probeResident(), null);
  t.end();
});

for (const method of usable) {
  void t.test(`${method}: what is there, and nothing more than that afterwards`, (t) => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(PAGES - 1)),
        fc.array(fc.tuple(fc.nat(PAGES - 1), fc.nat(PAGES)), { minLength: 1, maxLength: 8 }),
        (present, runs) => {
          const fd = createMemfd('resident', (LEAD + PAGES) * PAGE);
          const mapping = Mapping.map(fd, LEAD * PAGE, PAGES * PAGE);
          try {
            for (const page of present) mapping.write(page * PAGE, Uint8Array.of(1), 0, 1);
            const inside = runs.map(([first, count]) => [first, Math.min(count, PAGES - first)] as const);
            const ranges = Float64Array.from(
              inside.flatMap(([first, count]) => [first * PAGE, count * PAGE]),
            );
            const bytes = new Float64Array(inside.length).fill(-1);
            residentBytes(mapping, fd, ranges, inside.length, bytes, method);
            const wanted = inside.map(
              ([first, count]) =>
                PAGE * present.filter((page) => page >= first && page < first + count).length,
            );
            return (
              [...bytes].every((found, n) => found === wanted[n]) &&
              allocatedBytes(fd) === present.length * PAGE
            );
          } finally {
            mapping.close();
            closeFd(fd);
          }
        },
      ),
    );
    t.end();
  });

  void t.test(`${method}: ranges outside the mapping are refused`, (t) => {
    const { fd, mapping } = memory(t);
    const one = new Float64Array(1);
    for (const range of [
      [PAGES * PAGE, PAGE],
      [0, (PAGES + 1) * PAGE],
      [-PAGE, PAGE],
      [NaN, PAGE],
    ]) {
      t.throws(() => residentBytes(mapping, fd, Float64Array.from(range), 1, one, method), TypeError);
    }
    t.throws(() => residentBytes(mapping, fd, new Float64Array(4), 2, one, method), TypeError, 'no room');
    t.end();
  });
}

void t.test('a hole and a page of zeros read as zeros, any byte that is not zero does not', (t) => {
  const { fd, mapping, write } = memory(t);
  t.ok(readsAsZeros(mapping, fd, 0, PAGES * PAGE));
  t.equal(allocatedBytes(fd), 0, 'holes stay holes');
  write(7, 0);
  t.ok(readsAsZeros(mapping, fd, 0, PAGES * PAGE));
  for (const at of [9 * PAGE, 9 * PAGE + 1234, 10 * PAGE - 1, PAGES * PAGE - 1]) {
    mapping.write(at, Uint8Array.of(1), 0, 1);
    t.notOk(readsAsZeros(mapping, fd, 0, PAGES * PAGE));
    t.ok(readsAsZeros(mapping, fd, 0, 9 * PAGE), 'what is before it');
    mapping.write(at, Uint8Array.of(0), 0, 1);
  }
  t.ok(readsAsZeros(mapping, fd, 0, 0));
  t.throws(() => readsAsZeros(mapping, fd, 0, (PAGES + 1) * PAGE), TypeError);
  t.end();
});

void t.test('a file that was cut short reads as nothing', (t) => {
  const { fd, mapping } = memory(t);
  ftruncateSync(fd, (LEAD + 1) * PAGE);
  t.ok(readsAsZeros(mapping, fd, 0, PAGE));
  t.throws(() => readsAsZeros(mapping, fd, 0, 2 * PAGE), { code: 'ENXIO', syscall: 'pread' });
  t.end();
});
