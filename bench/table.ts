import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';

export type Row = Record<string, string | number>;

export function median(values: readonly number[]): number {
  return percentile(values, 50);
}

/** The value below which `percent` of all lie (nearest rank). */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? NaN;
}

/** Median, least and most. */
export function spread(values: readonly number[], digits = 2): string {
  if (values.length === 0) return '-';
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return `${median(values).toFixed(digits)} (${least.toFixed(digits)}..${most.toFixed(digits)})`;
}

/** Prints rows as a Markdown table and leaves them as JSON in bench/results/, with the figures they were made of. */
export function report(name: string, rows: readonly Row[], figures?: unknown): void {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  console.log(`\n${name} (Node ${process.version}, Linux ${release()}, ${cpus().length} CPUs)\n`);
  console.log(`| ${columns.join(' | ')} |`);
  console.log(`|${columns.map(() => '---').join('|')}|`);
  for (const row of rows) console.log(`| ${columns.map((column) => row[column] ?? '').join(' | ')} |`);
  mkdirSync('bench/results', { recursive: true });
  writeFileSync(
    `bench/results/${name}.json`,
    `${JSON.stringify({ node: process.version, rows, figures }, null, 2)}\n`,
  );
}
