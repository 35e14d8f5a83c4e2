/** Outcomes of simulations, in words and as a picture. */
import { POINTS, type Outcome } from './simulation.js';

const PERCENT = 100;
const SPARKS = '▁▂▃▄▅▆▇█';

export function reportTable(outcomes: readonly Outcome[], bands: readonly string[]): string {
  const header = [
    'policy',
    ...bands.map((band) => `${band} stalled`),
    'weighted work',
    'host out of memory',
    'changes/VM-hour',
  ];
  const rows = outcomes.map(({ policy, stallShare, workShare, oomSeconds, changesPerVmHour }) => [
    policy,
    ...stallShare.map((share) => `${(share * PERCENT).toFixed(3)} %`),
    `${(workShare * PERCENT).toFixed(1)} %`,
    `${oomSeconds} s`,
    changesPerVmHour.toFixed(1),
  ]);
  return columns([header, ...rows]);
}

/** Host memory and each band's stalls over the time, one line each. */
export function sparkLines({ policy, available, stalls }: Outcome, bands: readonly string[]): string {
  const lines = [
    [`${policy}: host available`, spark(available, 1), '0 to 100 %'],
    ...stalls.map((line, band) => [`${bands[band] ?? ''} stalled`, spark(line, 0.2), '0 to 20 %']),
  ];
  return columns(lines);
}

function spark(values: Float64Array, most: number): string {
  const width = 72;
  return Array.from({ length: width }, (_, n) => {
    const part = values.subarray(Math.floor((n * POINTS) / width), Math.floor(((n + 1) * POINTS) / width));
    const mean = part.reduce((sum, value) => sum + value, 0) / Math.max(1, part.length);
    return SPARKS[Math.min(SPARKS.length - 1, Math.floor((mean / most) * SPARKS.length))] ?? ' ';
  }).join('');
}

export function columns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, n) => cell.padEnd(widths[n] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const WIDTH = 860;
const PANEL = 150;
export const COLOURS = ['#2f6db5', '#8c959f', '#d9660a', '#b3261e'];

/** One panel for host memory, one for each band's stalls; one line for each policy. */
export function plotOutcomes(outcomes: readonly Outcome[], bands: readonly string[], hours: number): string {
  const panels = [
    { title: 'host memory available, %', most: 1, of: (outcome: Outcome) => outcome.available },
    ...bands.map((band, n) => ({
      title: `${band}: time stalled, %`,
      most: Math.max(0.01, ...outcomes.map(({ stalls }) => Math.max(...(stalls[n] ?? [0])))),
      of: (outcome: Outcome) => outcome.stalls[n] ?? new Float64Array(POINTS),
    })),
  ];
  const height = 60 + panels.length * (PANEL + 50);
  const text = (x: number, y: number, words: string, more = ''): string =>
    `<text x="${x}" y="${y}" ${more}>${words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="#24292f">`,
    `<rect width="${WIDTH}" height="${height}" rx="8" fill="#ffffff"/>`,
    ...outcomes.flatMap(({ policy }, n) => [
      `<rect x="${60 + n * 200}" y="15" width="14" height="14" fill="${COLOURS[n % COLOURS.length] ?? ''}"/>`,
      text(80 + n * 200, 27, policy),
    ]),
    ...panels.flatMap(({ title, most, of }, p) => {
      const top = 70 + p * (PANEL + 50);
      const bottom = top + PANEL;
      return [
        text(60, top - 8, title, 'font-weight="600"'),
        text(52, top + 4, (most * PERCENT).toFixed(most < 0.1 ? 1 : 0), 'text-anchor="end"'),
        text(52, bottom + 4, '0', 'text-anchor="end"'),
        text(WIDTH - 20, bottom + 18, `${hours} h`, 'text-anchor="end"'),
        `<path d="M60 ${top}V${bottom}H${WIDTH - 20}" fill="none" stroke="#8c959f"/>`,
        ...outcomes.map((outcome, n) => {
          const points = Array.from(of(outcome), (value, x) => {
            const y = bottom - Math.min(1, value / most) * PANEL;
            return `${(60 + (x * (WIDTH - 80)) / (POINTS - 1)).toFixed(1)},${y.toFixed(1)}`;
          });
          return `<polyline fill="none" stroke="${COLOURS[n % COLOURS.length] ?? ''}" stroke-width="1.5" points="${points.join(' ')}"/>`;
        }),
      ];
    }),
    '</svg>\n',
  ].join('\n');
}
