import t from 'tap';
import { Histogram } from '../../src/ops/histogram.js';

void t.test('a time is counted at the first bound that it does not exceed', (t) => {
  const histogram = new Histogram([0.001, 0.01, 1]);
  for (const seconds of [0, 0.001, 0.0011, 1, 1.1, 50]) histogram.observe(seconds);
  t.same(histogram.cumulative(), [2, 3, 4, 6]);
  t.equal(histogram.sumSeconds, 0 + 0.001 + 0.0011 + 1 + 1.1 + 50);
  t.end();
});

void t.test('sums of histograms count what each of them did', (t) => {
  const sum = new Histogram([1, 2]);
  const other = new Histogram([1, 2]);
  sum.observe(0.5);
  other.observe(1.5);
  other.observe(3);
  sum.add(other);
  t.same(sum.cumulative(), [1, 2, 3]);
  t.equal(sum.sumSeconds, 5);
  t.same(other.cumulative(), [0, 1, 2], 'which stay as they are');
  t.end();
});
