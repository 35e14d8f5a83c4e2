import t from 'tap';
import { fitLine } from '../../bench/fit.js';
import { nearLinearPlot } from '../../bench/near-linear-plot.js';
import type { Run } from '../../bench/working-sets.js';

void t.test('the line of least squares', (t) => {
  t.same(
    fitLine([
      [0, 1],
      [1, 3],
      [2, 5],
    ]),
    { slope: 2, intercept: 1, r2: 1 },
  );
  const { slope, intercept, r2 } = fitLine([
    [0, 0],
    [1, 2],
    [2, 1],
  ]);
  t.same([slope, intercept, r2], [0.5, 0.5, 0.25]);
  t.end();
});

void t.test('host memory is drawn at its height', (t) => {
  const run = (contender: Run['contender'], mib: number): Run => ({
    contender,
    floorMib: 64,
    points: [
      {
        workingSetMib: 128,
        settledMib: mib,
        streamMib: { median: mib, least: mib, most: mib },
        streamMibPerSecond: 100,
        damagedPages: 0,
      },
    ],
  });
  const xml = nearLinearPlot([run('no balloon', 256), run('page cache', 128)]);
  const heights = [...xml.matchAll(/<circle cx="[\d.]+" cy="([\d.]+)"/g)].map(([, cy]) => Number(cy));
  const tickAt = (mib: number): number =>
    Number(new RegExp(`y="([\\d.]+)" text-anchor="end"[^>]*>${mib}</text>`).exec(xml)?.[1]) - 4;
  t.same(heights, [tickAt(256), tickAt(128)]);
  t.end();
});
