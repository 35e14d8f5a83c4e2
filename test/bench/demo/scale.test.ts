import fc from 'fast-check';
import t from 'tap';
import { memoryScale, timeScale } from '../../../bench/demo/scale.js';

const MIB = 2 ** 20;

void t.test('memory ends at a tick, which holds everything', (t) => {
  t.same(memoryScale(1956 * MIB).ticks, [0, 512 * MIB, 1024 * MIB, 1536 * MIB, 2048 * MIB]);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 45 }), (bytes) => {
      const { max, ticks } = memoryScale(bytes);
      return max >= bytes && ticks.at(-1) === max && ticks.length >= 2 && ticks.length <= 5;
    }),
  );
  t.end();
});

void t.test('time has round ticks', (t) => {
  t.same(timeScale(8).ticks, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  t.same(timeScale(9).ticks, [0, 2, 4, 6, 8]);
  t.same(timeScale(36).ticks, [0, 5, 10, 15, 20, 25, 30, 35]);
  t.same(timeScale(75).ticks, [0, 10, 20, 30, 40, 50, 60, 70]);
  t.end();
});
