import t from 'tap';
import { median, percentile } from '../../bench/table.js';

void t.test('percentiles are values that occurred, by nearest rank', (t) => {
  const hundred = Array.from({ length: 100 }, (_, n) => 100 - n);
  for (const [values, percent, expected] of [
    [hundred, 50, 50],
    [hundred, 99, 99],
    [hundred, 100, 100],
    [hundred, 0, 1],
    [[7], 99, 7],
    [[10, 9, 100], 50, 10],
    [[3, 1], 50, 1],
    [[], 50, NaN],
  ] as const) {
    t.same(percentile(values, percent), expected, `${percent} % of ${values.length}`);
  }
  t.equal(median([5, 1, 3]), 3);
  t.end();
});
