import fc from 'fast-check';
import t from 'tap';
import { plot, PLOT_COLUMNS } from '../../../bench/demo/plot.js';
import { coloured, plain } from '../../../bench/demo/terminal.js';
import { anyRecording, GIVING } from './recordings.js';

const LEFT = 7;
const SECONDS = 36;

/** Rows of the plot's body, from the top; the first two lines are legend and marks. */
function body(lines: readonly string[]): string[] {
  return lines.slice(2, 18).map((line) => line.slice(LEFT));
}

/** The top of what `isCurve` accepts at a time, in MiB, half a row (of 128 MiB) too low on average. */
function topMib(rows: readonly string[], seconds: number, isCurve: (cell: string) => boolean): number {
  const column = Math.floor((seconds / SECONDS) * 72);
  const row = rows.findIndex((line) => isCurve(line.charAt(column)));
  return row < 0 ? 0 : (16 - row) * 128 - 64;
}

const isBlock = (cell: string) => /[▁-█]/.test(cell);
const isDots = (cell: string) => /[\u2801-\u28ff]/.test(cell);

void t.test('the curves run where the samples are', (t) => {
  const rows = body(plot(GIVING, plain));
  for (const [seconds, hostMib, guestMib] of [
    [2, 1536, 256],
    [8, 1536, 1920],
    [15, 1024, 1408],
    [28, 512, 896],
  ] as const) {
    t.ok(Math.abs(topMib(rows, seconds, isBlock) - hostMib) <= 128, `host at ${seconds} s`);
    t.ok(Math.abs(topMib(rows, seconds, isDots) - guestMib) <= 128, `guest at ${seconds} s`);
  }
  const jump = Math.floor((5 / SECONDS) * 72);
  const drawn = rows.filter((line) => isDots(line.charAt(jump)) || isDots(line.charAt(jump - 1)));
  t.ok(drawn.length >= 13, 'a steep part is joined');
  t.end();
});

void t.test('axes are labelled in MiB and seconds', (t) => {
  const lines = plot(GIVING, plain);
  t.match(lines[0], /^ {2}MiB .*host.*guest/);
  t.same(
    lines.flatMap((line) => (/^ +(\d+) [┤┼]/.exec(line)?.[1] ?? []) as string[]),
    ['2048', '1536', '1024', '512', '0'],
  );
  t.match(lines[19], /^ +0 +5 +10 +15 +20 +25 +30 +s$/);
  t.end();
});

void t.test('marks stand over their moments and are explained, also those that are near each other', (t) => {
  const lines = plot(GIVING, plain);
  const row = (lines[1] ?? '').slice(LEFT);
  t.equal(row.indexOf('1'), Math.floor((10 / SECONDS) * 71));
  t.equal(row.indexOf('2'), row.indexOf('1') + 1);
  t.equal(row.indexOf('3'), Math.floor((35 / SECONDS) * 71));
  t.match(lines.at(-3), /1 +10\.0 s +set --balloon 1G & <wait>$/);
  t.match(lines.at(-1), /3 +35\.0 s +used again$/);
  t.end();
});

void t.test('colours add nothing but colours', (t) => {
  const lines = plot(GIVING, coloured);
  const stripped = lines.map((line) => line.replaceAll(/\x1b\[[\d;]*m/g, ''));
  t.not(lines.join(), stripped.join());
  t.same(stripped, plot(GIVING, plain));
  t.end();
});

void t.test('any recording fits into 80 columns', (t) => {
  fc.assert(
    fc.property(anyRecording, (recording) => {
      const lines = plot(recording, plain);
      return (
        lines.length === 20 + recording.marks.length &&
        lines.every((line) => line.length <= PLOT_COLUMNS && !/NaN|undefined|Infinity/.test(line))
      );
    }),
  );
  t.end();
});
