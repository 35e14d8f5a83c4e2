/**
 * What the project exists for: the host memory of a VM against the working set of what runs in it, with a disk of four
 * times its memory read for each working set, without a balloon, with a traditional one that reports free pages, with
 * a traditional one that the policy sizes (which finds out in a longer stream that it is one), and with the page cache balloon, on one
 * device with the traditional one or on two, a guest each. `--only NAME` and `--working-set MIB` measure a part anew; the rest is what is stored.
 * `--untuned` leaves out the settings that come with the driver, and is stored apart. So is `--page-cache`, whose working set is
 * a part of the disk that is read over and over, after as much of the rest as the guest has memory was read once.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { buildCacheModule } from '../test/support/lab/cache-module.js';
import { oneOf } from './choice.js';
import { fitLine } from './fit.js';
import { ANONYMOUS, IN_PAGE_CACHE, nearLinearPlot } from './near-linear-plot.js';
import { report, type Row } from './table.js';
import { measure, type Contender, type Run } from './working-sets.js';

const MEMORY_MIB = 1024;
const WORKING_SETS_MIB = [64, 128, 256, 384, 512];
const CONTENDERS: readonly Contender[] = [
  'no balloon',
  'traditional, reporting',
  'traditional, sized by the host',
  'page cache',
  'page cache, two devices',
];
/** How often the memory is read, and how often before samples are taken. */
const STREAMS: Partial<Record<Contender, { times: number; warm: number }>> = {
  'traditional, sized by the host': { times: 8, warm: 4 },
};

function rows({ contender, floorMib, points }: Run): Row[] {
  const line = (when: string, figure: (point: Run['points'][number]) => number): Row => {
    const { slope, intercept, r2 } = fitLine(points.map((point) => [point.workingSetMib, figure(point)]));
    return {
      contender,
      when,
      ...Object.fromEntries(points.map((point) => [`${point.workingSetMib} MiB`, figure(point).toFixed(0)])),
      slope: slope.toFixed(3),
      'intercept MiB': intercept.toFixed(0),
      'x floor': (intercept / floorMib).toFixed(2),
      'R²': r2.toFixed(4),
      'swing %': when === 'settled' ? '' : swing(points).toFixed(0),
      'read MiB/s':
        when === 'settled'
          ? ''
          : Math.min(...points.map(({ streamMibPerSecond }) => streamMibPerSecond)).toFixed(0),
      'floor MiB': floorMib.toFixed(0),
      'damaged pages': points.reduce((sum, { damagedPages }) => sum + damagedPages, 0),
    };
  };
  if (cached)
    return [
      {
        ...line('read over and over', ({ settledMib }) => settledMib),
        'read again %': points
          .map(({ readAgainShare = NaN }) => (readAgainShare * 100).toFixed(1))
          .join(', '),
        'loops MiB/s': points.map(({ streamMibPerSecond }) => streamMibPerSecond.toFixed(0)).join(', '),
      },
    ];
  return [
    line('settled', ({ settledMib }) => settledMib),
    line('disk is read', ({ streamMib }) => streamMib.median),
  ];
}

/** The most that samples lay from their median. */
function swing(points: Run['points']): number {
  return Math.max(
    ...points.map(
      ({ streamMib: { median, least, most } }) => (Math.max(most - median, median - least) / median) * 100,
    ),
  );
}

const {
  only,
  'working-set': oneMib,
  untuned,
  'page-cache': cached,
} = parseArgs({
  options: {
    only: { type: 'string' },
    'working-set': { type: 'string' },
    untuned: { type: 'boolean', default: false },
    'page-cache': { type: 'boolean', default: false },
  },
}).values;
const name = untuned ? 'near-linear-untuned' : cached ? 'near-linear-cache' : 'near-linear';
const results = `bench/results/${name}.json`;
const contenders = only === undefined ? CONTENDERS : [oneOf('--only', CONTENDERS, only)];
const module = await buildCacheModule();
if (module === null) throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
for (const contender of contenders) {
  const { times, warm } = STREAMS[contender] ?? { times: 4, warm: 1 };
  for (const workingSetMib of WORKING_SETS_MIB.filter(
    (mib) => oneMib === undefined || mib === Number(oneMib),
  )) {
    const run = await measure(contender, {
      memoryMib: MEMORY_MIB,
      workingSetsMib: [workingSetMib],
      streamMib: times * MEMORY_MIB,
      warmMib: warm * MEMORY_MIB,
      module,
      tuned: !untuned,
      inPageCache: cached,
      onSample: (_, streaming, hostMib) => {
        process.stderr.write(
          `\r${contender}: ${workingSetMib} MiB, ${streaming ? 'disk is read' : 'settling'}, host ${hostMib.toFixed(0)} MiB  `,
        );
      },
    });
    keep(run);
  }
}
const all = stored();
report(name, all.flatMap(rows), all);
// One device and two lie on each other.
const pictured = all.filter(({ contender }) => contender !== 'page cache, two devices');
if (!untuned)
  writeFileSync(`docs/development/${name}.svg`, nearLinearPlot(pictured, cached ? IN_PAGE_CACHE : ANONYMOUS));

/** Beside what is stored, so that a run may be made of many. */
function keep(run: Run): void {
  const kept = new Map(stored().map((one) => [one.contender, one]));
  const others = (kept.get(run.contender)?.points ?? []).filter(
    (point) => !run.points.some(({ workingSetMib }) => workingSetMib === point.workingSetMib),
  );
  const points = [...others, ...run.points].sort((a, b) => a.workingSetMib - b.workingSetMib);
  kept.set(run.contender, { ...run, points });
  mkdirSync(dirname(results), { recursive: true });
  const figures = CONTENDERS.flatMap((one) => kept.get(one) ?? []);
  writeFileSync(results, JSON.stringify({ figures }));
}

function stored(): Run[] {
  if (!existsSync(results)) return [];
  return (JSON.parse(readFileSync(results, 'utf8')) as { figures: Run[] }).figures;
}
