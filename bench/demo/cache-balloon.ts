/** `npm run demo -- --cache-balloon [--svg FILE]`: what a guest costs the host, by what it works with, without and with the balloon. */
import { writeFileSync } from 'node:fs';
import { fitLine } from '../fit.js';
import { nearLinearPlot } from '../near-linear-plot.js';
import { measure, type Contender, type Run } from '../working-sets.js';
import { buildCacheModule } from '../../test/support/lab/cache-module.js';
import { sizeBars } from './size-bars.js';
import type { Terminal } from './terminal.js';

const MEMORY_MIB = 512;
const WORKING_SETS_MIB = [64, 128, 256];
/** More than its memory, so that all of it would be page cache. */
const STREAM_MIB = 768;
const CONTENDERS: readonly Contender[] = ['no balloon', 'page cache'];

export async function tellCacheBalloon(terminal: Terminal, svgPath?: string): Promise<void> {
  const module = await buildCacheModule();
  if (module === null)
    throw new Error('no driver for the kernel of the lab: remove the folder of scripts/lab');
  terminal.print(
    `A guest of ${MEMORY_MIB} MiB works with some of its memory while it reads ${STREAM_MIB} MiB from a disk.\n`,
  );
  const runs: Run[] = [];
  for (const contender of CONTENDERS) {
    const run = await measure(contender, {
      memoryMib: MEMORY_MIB,
      workingSetsMib: WORKING_SETS_MIB,
      streamMib: STREAM_MIB,
      warmMib: MEMORY_MIB,
      module,
      onSample: (workingSetMib, streaming, hostMib) =>
        terminal.progress(
          `${contender}: works with ${workingSetMib} MiB, ${streaming ? 'reads' : 'rests'}: ${hostMib.toFixed(0)} MiB on the host`,
        ),
    });
    runs.push(run);
    for (const line of sizeBars(run, MEMORY_MIB, terminal.paint)) terminal.print(line);
  }
  const damaged = runs
    .flatMap(({ points }) => points)
    .reduce((sum, { damagedPages }) => sum + damagedPages, 0);
  if (damaged > 0) throw new Error(`${damaged} pages of the guest were not as it had written them`);
  if (svgPath !== undefined) writeFileSync(svgPath, nearLinearPlot(runs));
  const cached = runs.at(-1)?.points ?? [];
  const { slope, intercept } = fitLine(cached.map((point) => [point.workingSetMib, point.settledMib]));
  terminal.print(
    terminal.paint(
      'bold',
      `With the page cache balloon each MiB in use costs the host ${slope.toFixed(2)} MiB, and the guest's own ${intercept.toFixed(0)} MiB once.`,
    ),
  );
}
