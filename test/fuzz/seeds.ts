import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const FOLDER = join(import.meta.dirname, '../../../test/fuzz/seeds');

/** Seeds of cases that found something once, one a line; what they found stands behind them. */
export function keptSeeds(name: string): number[] {
  return readFileSync(join(FOLDER, name), 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((word) => /^\d+$/.test(word))
    .map(Number);
}
