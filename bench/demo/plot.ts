/**
 * A recording as 80 columns of text: the host's memory as an area of eighth blocks, the guest's free memory as a
 * line of braille dots over it, so that the two are told apart without colours as well.
 */
import {
  CURVE_TITLES,
  largestBytes,
  lastSecond,
  valueAt,
  type Mark,
  type Recording,
  type Sample,
} from './recording.js';
import { memoryScale, timeScale, type Scale } from './scale.js';
import type { Paint } from './terminal.js';

export const PLOT_COLUMNS = 80;

const MIB = 2 ** 20;
const ROWS = 16;
const LABEL_COLUMNS = 6;
const COLUMNS = PLOT_COLUMNS - LABEL_COLUMNS - 2;
const BLOCKS = ' ▁▂▃▄▅▆▇█';
const EIGHTHS = 8;
const UNIT = ' s';

/** Braille patterns (Unicode U+2800): a cell has 2 by 4 dots, one bit each, rows from the top. */
const BRAILLE = 0x2800;
const DOT_COLUMNS = 2;
const DOT_ROWS = 4;
const DOT_BITS = [
  [0x01, 0x08],
  [0x02, 0x10],
  [0x04, 0x20],
  [0x40, 0x80],
];

export function plot(recording: Recording, paint: Paint): string[] {
  const memory = memoryScale(largestBytes(recording));
  const time = timeScale(lastSecond(recording));
  return [
    `${'MiB'.padStart(LABEL_COLUMNS - 1)}   ${legend(paint)}`,
    indent(paint('bold', markRow(recording.marks, time))),
    ...body(recording.samples, memory, time, paint),
    ...timeAxis(time).map((line) => paint('dim', line)),
    ...recording.marks.map(({ seconds, text }, index) =>
      indent(`${paint('bold', `${index + 1}`)} ${`${seconds.toFixed(1)} s`.padStart(7)}  ${text}`),
    ),
  ];
}

function legend(paint: Paint): string {
  const host = paint('blue', '▅▆█');
  const guest = paint('orange', '⠤⠒⠉');
  return `${host} ${CURVE_TITLES.hostBytes}   ${guest} ${CURVE_TITLES.guestFreeBytes}`;
}

function indent(text: string): string {
  return ' '.repeat(LABEL_COLUMNS + 1) + text;
}

/** The marks' numbers over their columns; one that finds its place taken stands to the right, and all find one. */
function markRow(marks: readonly Mark[], time: Scale): string {
  let row = '';
  for (const [index, { seconds }] of marks.entries()) {
    const last = COLUMNS - (marks.length - index);
    const column = Math.min(Math.floor((seconds / time.max) * (COLUMNS - 1)), last);
    row = `${row.padEnd(column)}${index + 1}`;
  }
  return row;
}

function body(samples: readonly Sample[], memory: Scale, time: Scale, paint: Paint): string[] {
  const dots = guestDots(samples, memory, time);
  const eighths = Array.from({ length: COLUMNS }, (_, column) => {
    const bytes = valueAt(samples, 'hostBytes', ((column + 0.5) / COLUMNS) * time.max);
    return Math.round((bytes / memory.max) * ROWS * EIGHTHS);
  });
  return Array.from({ length: ROWS }, (_, row) => {
    const below = ROWS - 1 - row;
    const cells = eighths.map((height, column) => {
      const level = Math.min(EIGHTHS, Math.max(0, height - below * EIGHTHS));
      const bits = dots[row]?.[column] ?? 0;
      if (bits === 0) return level === 0 ? ' ' : paint('blue', BLOCKS.charAt(level));
      const colour = level > EIGHTHS / 2 ? 'orangeOnBlue' : 'orange';
      return paint(colour, String.fromCodePoint(BRAILLE + bits));
    });
    return paint('dim', memoryLabel(memory, below + 1)) + cells.join('');
  });
}

/** Bits of each cell through which the guest's line goes; steep parts are joined. */
function guestDots(samples: readonly Sample[], memory: Scale, time: Scale): number[][] {
  const cells = Array.from({ length: ROWS }, () => new Array<number>(COLUMNS).fill(0));
  const lastX = COLUMNS * DOT_COLUMNS - 1;
  const lastY = ROWS * DOT_ROWS - 1;
  let previous: number | null = null;
  for (let x = 0; x <= lastX; x++) {
    const bytes = valueAt(samples, 'guestFreeBytes', (x / lastX) * time.max);
    const y = Math.round((1 - bytes / memory.max) * lastY);
    const from = previous ?? y;
    for (let dot = Math.min(from, y); dot <= Math.max(from, y); dot++) {
      const cellRow = cells[Math.floor(dot / DOT_ROWS)];
      const column = Math.floor(x / DOT_COLUMNS);
      const bit = DOT_BITS[dot % DOT_ROWS]?.[x % DOT_COLUMNS] ?? 0;
      if (cellRow !== undefined) cellRow[column] = (cellRow[column] ?? 0) | bit;
    }
    previous = y;
  }
  return cells;
}

/** The label of the row whose upper edge is `edge` rows above 0. */
function memoryLabel(memory: Scale, edge: number): string {
  const tick = memory.ticks.find((bytes) => Math.round((bytes / memory.max) * ROWS) === edge);
  return tick === undefined
    ? `${' '.repeat(LABEL_COLUMNS)}│`
    : `${`${tick / MIB}`.padStart(LABEL_COLUMNS - 1)} ┤`;
}

function timeAxis(time: Scale): [line: string, labels: string] {
  const columns = time.ticks.map((tick) => Math.round((tick / time.max) * (COLUMNS - 1)));
  const rule = Array.from({ length: COLUMNS }, (_, column) => (columns.includes(column) ? '┬' : '─'));
  let labels = '';
  for (const [index, column] of columns.entries()) {
    const label = `${time.ticks[index]}`;
    // The last columns are the unit's.
    if (column + label.length <= COLUMNS - UNIT.length) labels = labels.padEnd(column) + label;
  }
  return [
    `${'0'.padStart(LABEL_COLUMNS - 1)} ┼${rule.join('')}`,
    indent(labels.padEnd(COLUMNS - UNIT.length) + UNIT),
  ];
}
