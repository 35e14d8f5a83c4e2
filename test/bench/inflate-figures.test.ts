import t from 'tap';
import { figures } from '../../bench/inflate-figures.js';
import { inflatePlot } from '../../bench/inflate-plot.js';
import { BUILTIN, LIMIT, type Outcome } from '../../bench/inflate.js';
import type { Round } from '../../bench/race.js';

const GIB = 2 ** 30;

function round(
  freeSeconds: number | null,
  micros: readonly number[],
  discardSeconds: number | null = null,
): Round {
  return {
    micros,
    freeSeconds,
    freedBytes: freeSeconds === null ? GIB / 4 : GIB,
    cpu: { driver: 0.25, vmm: 0.125, rings: 0.125, discards: 0.25, discardsWaiting: 0.125 },
    hugePagesMade: 0,
    hugePagesSplit: 3,
    discarding: discardSeconds === null ? null : { bytes: GIB, seconds: discardSeconds },
  };
}

function outcome(ours: readonly Round[]): Outcome {
  return {
    backing: '4 KiB shmem',
    pattern: 'sequential',
    givenBytes: GIB,
    entries: [
      { name: BUILTIN, rounds: [4, 5, 3].map((seconds) => round(seconds, [3000, 4000])) },
      { name: 'balloond', rounds: ours },
      { name: LIMIT, rounds: [0.25, 0.2, 0.5].map((seconds) => round(seconds, [seconds * 1e6], seconds)) },
    ],
  };
}

void t.test('medians of the rounds, against built-in and limit', (t) => {
  const [builtin, ours, limit] = figures(
    outcome([round(0.5, [50, 60]), round(1, [70, 400], 0.1), round(0.25, [55, 65])]),
  );
  t.match(builtin, { gibPerSecond: 0.25, slowestGibPerSecond: 0.2, timesBuiltin: 1, ofLimit: 0.0625 });
  t.match(ours, {
    gibPerSecond: 2,
    slowestGibPerSecond: 1,
    fastestGibPerSecond: 4,
    timesBuiltin: 8,
    ofLimit: 0.5,
    ackP50Micros: 60,
    ackP99Micros: 400,
    cpuSecondsPerGib: 0.5,
    coresBusy: 1.5,
    hugePagesSplit: 3,
    freedShare: 1,
  });
  t.match(limit, { gibPerSecond: 4, ofLimit: 1, discardingGibPerSecond: 4 });
  t.equal(limit?.ackP50Micros, null, 'one call a round is no kick');
  t.end();
});

void t.test('memory that once was not given back makes no figure of speed', (t) => {
  const [, ours] = figures(outcome([round(null, [50, 60]), round(0.5, [50, 60]), round(0.25, [50, 60])]));
  t.match(ours, { gibPerSecond: null, timesBuiltin: null, ofLimit: null, slowestGibPerSecond: null });
  t.end();
});

void t.test('the plot has the goals where they are meant', (t) => {
  const given = figures(outcome([round(0.5, [50, 60])]));
  t.match(inflatePlot(given), 'goal: 16 x built-in');
  t.notMatch(inflatePlot(given.map((each) => ({ ...each, backing: 'THP shmem' }))), 'goal');
  t.notMatch(inflatePlot(given.map((each) => ({ ...each, pattern: 'descending' }))), 'goal');
  t.end();
});
