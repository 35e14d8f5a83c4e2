/** A recording as an SVG picture: the same scales, curves and marks as on the terminal. */
import {
  CURVE_TITLES,
  largestBytes,
  lastSecond,
  type Curve,
  type Recording,
  type Sample,
} from './recording.js';
import { memoryScale, timeScale } from './scale.js';

const MIB = 2 ** 20;
const WIDTH = 860;
const MARGIN = { left: 72, right: 28, top: 64 };
const PLOT_WIDTH = WIDTH - MARGIN.left - MARGIN.right;
const PLOT_HEIGHT = 280;
const BOTTOM = MARGIN.top + PLOT_HEIGHT;
const KEY_TOP = BOTTOM + 62;
const KEY_ROW = 22;
const COLOURS = { text: '#24292f', faint: '#57606a', grid: '#e4e8ec', host: '#2f6db5', guest: '#d9660a' };

export function svg(recording: Recording): string {
  const { samples, marks } = recording;
  const memory = memoryScale(largestBytes(recording));
  const time = timeScale(lastSecond(recording));
  const x = (seconds: number) => round(MARGIN.left + (seconds / time.max) * PLOT_WIDTH);
  const y = (bytes: number) => round(BOTTOM - (bytes / memory.max) * PLOT_HEIGHT);
  const points = (curve: Curve) =>
    samples.map((sample: Sample) => `${x(sample.seconds)},${y(sample[curve])}`).join(' ');
  const ends = [samples.at(-1), samples.at(0)].map((sample) => `${x(sample?.seconds ?? 0)},${BOTTOM}`);
  const keyRows = Math.ceil(marks.length / 2);
  const height = KEY_TOP + keyRows * KEY_ROW;

  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" ` +
      `font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="13" fill="${COLOURS.text}">`,
    `<title>${escape(`${CURVE_TITLES.hostBytes}, and ${CURVE_TITLES.guestFreeBytes}`)}</title>`,
    `<rect width="${WIDTH}" height="${height}" rx="8" fill="#ffffff"/>`,
    ...legend('hostBytes', COLOURS.host, MARGIN.left),
    ...legend('guestFreeBytes', COLOURS.guest, MARGIN.left + 290),
    ...memory.ticks.flatMap((bytes) => [
      `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${y(bytes)}" y2="${y(bytes)}" stroke="${COLOURS.grid}"/>`,
      text(MARGIN.left - 10, y(bytes) + 4, `${bytes / MIB}`, 'end', COLOURS.faint),
    ]),
    text(MARGIN.left - 10, MARGIN.top - 16, 'MiB', 'end', COLOURS.faint),
    ...time.ticks.map((tick) => text(x(tick), BOTTOM + 20, `${tick}`, 'middle', COLOURS.faint)),
    text(WIDTH - MARGIN.right, BOTTOM + 38, 'seconds', 'end', COLOURS.faint),
    `<polygon points="${[points('hostBytes'), ...ends].join(' ')}" fill="${COLOURS.host}" fill-opacity="0.14"/>`,
    `<polyline points="${points('hostBytes')}" ${stroke(COLOURS.host)}/>`,
    `<polyline points="${points('guestFreeBytes')}" ${stroke(COLOURS.guest)}/>`,
    ...marks.flatMap(({ seconds }, index) => [
      `<line x1="${x(seconds)}" x2="${x(seconds)}" y1="${MARGIN.top}" y2="${BOTTOM}" stroke="${COLOURS.faint}" ` +
        `stroke-opacity="0.6" stroke-dasharray="2 4"/>`,
      ...badge(x(seconds), MARGIN.top - 14, index + 1),
    ]),
    ...marks.flatMap((mark, index) => {
      const left = MARGIN.left + Math.floor(index / keyRows) * (PLOT_WIDTH / 2);
      const top = KEY_TOP + (index % keyRows) * KEY_ROW;
      return [...badge(left + 8, top - 4, index + 1), text(left + 24, top, mark.text, 'start', COLOURS.text)];
    }),
    '</svg>',
  ];
  return `${lines.join('\n')}\n`;
}

function legend(curve: Curve, colour: string, left: number): string[] {
  return [
    `<line x1="${left}" x2="${left + 22}" y1="24" y2="24" ${stroke(colour)}/>`,
    text(left + 30, 28, CURVE_TITLES[curve], 'start', COLOURS.text),
  ];
}

/** A mark's number in a disc. */
function badge(x: number, y: number, number: number): string[] {
  return [
    `<circle cx="${x}" cy="${y}" r="8.5" fill="${COLOURS.text}"/>`,
    `<text x="${x}" y="${y + 4}" text-anchor="middle" font-size="11" font-weight="600" fill="#ffffff">${number}</text>`,
  ];
}

function text(x: number, y: number, words: string, anchor: 'start' | 'middle' | 'end', fill: string): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="${fill}">${escape(words)}</text>`;
}

function stroke(colour: string): string {
  return `fill="none" stroke="${colour}" stroke-width="2.5" stroke-linejoin="round" stroke-linecap="round"`;
}

function escape(words: string): string {
  return words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}
