import fc from 'fast-check';
import t from 'tap';
import { kicks, patterns, PFNS_PER_KICK, punches, type Pattern } from '../../bench/patterns.js';

const FIRST_PFN = 4096;
const PAGES = 4096;
const PAGE = 4096;

void t.test('every pattern gives up each page once, 256 a kick', (t) => {
  for (const pattern of patterns(FIRST_PFN, PAGES)) {
    const given = kicks(pattern).flatMap((buffer) => {
      t.equal(buffer.length, PFNS_PER_KICK * 4);
      return [...new Uint32Array(buffer.buffer)];
    });
    t.same(given, [...pattern.pfns], pattern.name);
    t.same(
      given.sort((a, b) => a - b),
      Array.from({ length: PAGES }, (_, n) => FIRST_PFN + n),
      pattern.name,
    );
  }
  t.end();
});

void t.test('patterns are in the order of their names', (t) => {
  const steps = patterns(FIRST_PFN, PAGES).map(({ name, pfns }) => {
    const up = pfns.filter((pfn, n) => n > 0 && pfn === (pfns[n - 1] ?? 0) + 1).length;
    const down = pfns.filter((pfn, n) => n > 0 && pfn === (pfns[n - 1] ?? 0) - 1).length;
    return { name, up, down };
  });
  const [sequential, runs, random, descending] = steps;
  t.match(sequential, { name: 'sequential', up: PAGES - 1 });
  t.match(descending, { name: 'descending', down: PAGES - 1 });
  const withinRuns = (PAGES / 16) * 15;
  t.ok((runs?.up ?? 0) >= withinRuns && (runs?.up ?? 0) < withinRuns + 20, 'runs of 16');
  t.ok((random?.up ?? PAGES) < 20, 'random');
  t.end();
});

void t.test('a huge page is punched once, by the call that completes it', (t) => {
  const pfns = Uint32Array.of(0, 1, 4, 5, 2, 6, 3, 7, 8, 9);
  const calls = punches({ name: '', pfns }, 4 * PAGE, 4).map((ranges) => [...ranges]);
  t.same(calls, [[], [0, 8 * PAGE], []]);
  t.end();
});

void t.test('punches are the fewest ranges of the complete backing pages', (t) => {
  const anyPattern = fc
    .uniqueArray(fc.nat(300), { minLength: 1 })
    .map((pfns): Pattern => ({ name: '', pfns: Uint32Array.from(pfns) }));
  fc.assert(
    fc.property(
      anyPattern,
      fc.constantFrom(1, 2, 8),
      fc.integer({ min: 1, max: 400 }),
      (pattern, unit, size) => {
        const punched: number[] = [];
        for (const ranges of punches(pattern, unit * PAGE, size)) {
          let end = -1;
          for (let at = 0; at < ranges.length; at += 2) {
            const first = (ranges[at] ?? NaN) / PAGE;
            const count = (ranges[at + 1] ?? NaN) / PAGE;
            if (first <= end || count <= 0) throw new Error('ranges touch, or are not in order');
            end = first + count;
            for (let pfn = first; pfn < end; pfn++) punched.push(pfn);
          }
        }
        const given = new Set(pattern.pfns);
        const whole = (pfn: number): boolean => {
          const from = pfn - (pfn % unit);
          return Array.from({ length: unit }, (_, n) => from + n).every((each) => given.has(each));
        };
        const expected = [...given].filter(whole).sort((a, b) => a - b);
        t.same(
          punched.sort((a, b) => a - b),
          expected,
        );
      },
    ),
  );
  t.end();
});
