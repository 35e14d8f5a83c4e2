/** A run as bars on the terminal, one a working set: what it works with, what the host has when it rests, and when it reads. */
import type { Run } from '../working-sets.js';
import type { Paint } from './terminal.js';

const COLUMNS = 52;

export function sizeBars({ contender, points }: Run, memoryMib: number, paint: Paint): string[] {
  const columns = (mib: number): number => Math.min(COLUMNS, Math.round((mib / memoryMib) * COLUMNS));
  return [
    paint('bold', contender),
    `  works with   ${'█'.repeat(2)} of it on the host   ${'░'.repeat(2)} while it reads`,
    ...points.map(({ workingSetMib, settledMib, streamMib }) => {
      const settled = columns(settledMib);
      const reading = Math.max(0, columns(streamMib.median) - settled);
      const bar = paint('blue', '█'.repeat(settled)) + paint('orange', '░'.repeat(reading));
      const words = `${settledMib.toFixed(0)} (${streamMib.median.toFixed(0)}) MiB`;
      return `${`${workingSetMib} MiB`.padStart(12)} │${bar}${' '.repeat(COLUMNS - settled - reading)} ${words}`;
    }),
    '',
  ];
}
