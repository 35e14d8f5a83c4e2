/**
 * What the project exists for: the host memory of a VM against the working set of what runs in it, with a disk of four
 * times its memory read for each working set, without a balloon, with a traditional one that reports free pages, and with
 * the page cache balloon. `--only NAME` measures one of them anew.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { buildCacheModule } from '../test/support/lab/cache-module.js';
import { fitLine } from './fit.js';
import { nearLinearPlot } from './near-linear-plot.js';
import { report, type Row } from './table.js';
import { measure, type Contender, type Run } from './working-sets.js';

const MEMORY_MIB = 1024;
const WORKING_SETS_MIB = [64, 128, 256, 384, 512];
const CONTENDERS: readonly Contender[] = ['no balloon', 'traditional, reporting', 'page cache'];
const RESULTS = 'bench/results/near-linear.json';
const PICTURE = 'docs/near-linear.svg';

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

const { only } = parseArgs({ options: { only: { type: 'string' } } }).values;
const module = await buildCacheModule();
if (module === null) throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
const measured = new Map<Contender, Run>();
for (const contender of CONTENDERS.filter((name) => only === undefined || name === only)) {
  measured.set(
    contender,
    await measure(contender, {
      memoryMib: MEMORY_MIB,
      workingSetsMib: WORKING_SETS_MIB,
      streamMib: 4 * MEMORY_MIB,
      module,
      onSample: (workingSetMib, streaming, hostMib) => {
        process.stderr.write(
          `\r${contender}: ${workingSetMib} MiB, ${streaming ? 'disk is read' : 'settling'}, host ${hostMib.toFixed(0)} MiB  `,
        );
      },
    }),
  );
}
/** What is not measured now is that of earlier runs, or of one that ended meanwhile. */
const runs = new Map(only === undefined ? [] : stored().map((run) => [run.contender, run]));
for (const [contender, run] of measured) runs.set(contender, run);
const all = CONTENDERS.flatMap((name) => runs.get(name) ?? []);
report('near-linear', all.flatMap(rows), all);
writeFileSync(PICTURE, nearLinearPlot(all));

function stored(): Run[] {
  if (!existsSync(RESULTS)) return [];
  return (JSON.parse(readFileSync(RESULTS, 'utf8')) as { figures: Run[] }).figures;
}
