/**
 * Host memory against the working set, as an SVG picture that can be read on light and dark pages: settled as a solid
 * line, while the disk is read as a dashed one with whiskers. Thin and grey: the kernel's floor and the working set.
 */
import type { Contender, Run } from './working-sets.js';

const WIDTH = 960;
const HEIGHT = 430;
const LEFT = 64;
const RIGHT = 16;
const TOP = 82;
const BOTTOM = HEIGHT - 48;
const STEP_MIB = 128;
const COLOURS: Record<Contender | 'text' | 'faint' | 'grid', string> = {
  'no balloon': '#8c959f',
  'traditional, reporting': '#d9660a',
  'traditional, sized by the host': '#1a7f37',
  'page cache': '#2f6db5',
  'page cache, two devices': '#8250df',
  text: '#24292f',
  faint: '#57606a',
  grid: '#e4e8ec',
};

/** What the axes are, and when else but settled host memory was looked at. */
interface PlotWords {
  readonly across: string;
  readonly up: string;
  readonly dashed: string | null;
}

export const ANONYMOUS: PlotWords = {
  across: 'MiB of anonymous memory that the guest works with',
  up: 'MiB that the host has allocated to the VM, settled',
  dashed: 'while a disk is read',
};
export const IN_PAGE_CACHE: PlotWords = {
  across: 'MiB of a disk that the guest reads over and over',
  up: 'MiB that the host has allocated to the VM, meanwhile',
  dashed: null,
};

export function nearLinearPlot(runs: readonly Run[], { across, up, dashed }: PlotWords = ANONYMOUS): string {
  const points = runs.flatMap((run) => run.points);
  const maxX = ceil(Math.max(...points.map(({ workingSetMib }) => workingSetMib)));
  const maxY = ceil(
    Math.max(...points.map(({ settledMib, streamMib }) => Math.max(settledMib, streamMib.most))),
  );
  const floorMib = Math.min(...runs.map((run) => run.floorMib));
  const x = (mib: number): number => round(LEFT + (mib / maxX) * (WIDTH - LEFT - RIGHT));
  const y = (mib: number): number => round(BOTTOM - (mib / maxY) * (BOTTOM - TOP));
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" ` +
      `font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="${COLOURS.text}">`,
    '<title>Host memory of a VM against the working set in it</title>',
    `<rect width="${WIDTH}" height="${HEIGHT}" rx="8" fill="#ffffff"/>`,
    ...multiples(maxX).map((mib) => text(x(mib), BOTTOM + 18, `${mib}`, 'middle', COLOURS.faint)),
    text(WIDTH - RIGHT, BOTTOM + 36, across, 'end', COLOURS.faint),
    text(LEFT, TOP - 16, up, 'start', COLOURS.faint),
    ...multiples(maxY).flatMap((mib) => [
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(mib)}" y2="${y(mib)}" stroke="${COLOURS.grid}"/>`,
      text(LEFT - 8, y(mib) + 4, `${mib}`, 'end', COLOURS.faint),
    ]),
    polyline(
      [0, maxX].map((mib) => [x(mib), y(floorMib + mib)]),
      `stroke="${COLOURS.faint}" stroke-width="1"`,
    ),
    ...runs.flatMap(({ contender, points: own }, n) => {
      const colour = COLOURS[contender];
      const left = LEFT + (n * (WIDTH - LEFT)) / runs.length;
      // So that it shows where another lies on it.
      const width = contender === 'no balloon' ? 7 : 2.5;
      return [
        polyline(
          [
            [left, 20],
            [left + 24, 20],
          ],
          `stroke="${colour}" stroke-width="${width}"`,
        ),
        text(left + 32, 24, contender, 'start', COLOURS.text),
        ...(dashed === null ? [] : dashedLegend(left, colour, dashed)),
        polyline(
          own.map(({ workingSetMib, settledMib }) => [x(workingSetMib), y(settledMib)]),
          `stroke="${colour}" stroke-width="${width}"`,
        ),
        ...(dashed === null
          ? []
          : [
              polyline(
                own.map(({ workingSetMib, streamMib }) => [x(workingSetMib), y(streamMib.median)]),
                `stroke="${colour}" stroke-width="2" stroke-dasharray="5 4"`,
              ),
            ]),
        ...own.flatMap(({ workingSetMib, settledMib, streamMib: { least, most } }) => [
          `<circle cx="${x(workingSetMib)}" cy="${y(settledMib)}" r="4" fill="${colour}"/>`,
          polyline(
            [
              [x(workingSetMib), y(least)],
              [x(workingSetMib), y(most)],
            ],
            `stroke="${colour}" stroke-opacity="0.6"`,
          ),
        ]),
      ];
    }),
    text(x(maxX) - 4, y(floorMib + maxX * 0.72), 'kernel + working set', 'end', COLOURS.faint),
    '</svg>',
  ];
  return `${lines.join('\n')}\n`;
}

function dashedLegend(left: number, colour: string, words: string): string[] {
  const line = [
    [left, 40],
    [left + 24, 40],
  ];
  return [
    polyline(line, `stroke="${colour}" stroke-width="2" stroke-dasharray="5 4"`),
    text(left + 32, 44, words, 'start', COLOURS.text),
  ];
}

function ceil(mib: number): number {
  return Math.ceil(mib / STEP_MIB) * STEP_MIB;
}

function multiples(max: number): number[] {
  return Array.from({ length: max / STEP_MIB + 1 }, (_, n) => n * STEP_MIB);
}

function polyline(points: readonly (readonly number[])[], style: string): string {
  return `<polyline points="${points.map((point) => point.join(',')).join(' ')}" fill="none" ${style}/>`;
}

function text(x: number, y: number, words: string, anchor: 'start' | 'middle' | 'end', fill: string): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="${fill}">${words}</text>`;
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}
