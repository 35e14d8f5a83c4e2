/**
 * Bars on a logarithmic scale as an SVG picture that can be read on light and dark pages. Panels lie one below the
 * other, each with a scale of its own.
 */
export interface Bar {
  readonly series: string;
  /** Null draws nothing but the words. */
  readonly value: number | null;
  /** The ends of the whisker. */
  readonly least: number | null;
  readonly most: number | null;
  /** Stands over the bar. */
  readonly words: string;
}

export interface Goal {
  readonly value: number;
  readonly words: string;
}

export interface Group {
  readonly name: string;
  readonly bars: readonly Bar[];
  /** A line across the group. */
  readonly goal: Goal | null;
}

export interface Panel {
  readonly name: string;
  readonly groups: readonly Group[];
}

export interface BarPlot {
  readonly title: string;
  readonly unit: string;
  readonly panels: readonly Panel[];
}

const WIDTH = 860;
const LEFT = 64;
const RIGHT = 16;
const TOP = 74;
const PANEL_HEIGHT = 190;
const PANEL_GAP = 78;
const LEGEND_STEP = 150;
const BAR_SHARE = 0.84;
const COLOURS = {
  text: '#24292f',
  faint: '#57606a',
  grid: '#e4e8ec',
  goal: '#b3261e',
  series: ['#8c959f', '#2f6db5', '#d9660a', '#f0b429'],
};

export function barPlot({ title, unit, panels }: BarPlot): string {
  const series = [...new Set(bars(panels).map((bar) => bar.series))];
  const height = TOP + panels.length * (PANEL_HEIGHT + PANEL_GAP);
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" ` +
      `font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="${COLOURS.text}">`,
    `<title>${escape(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" rx="8" fill="#ffffff"/>`,
    ...series.flatMap((name, n) => [
      `<rect x="${LEFT + n * LEGEND_STEP}" y="15" width="14" height="14" fill="${colour(n)}"/>`,
      text(LEFT + n * LEGEND_STEP + 20, 27, name, 'start'),
    ]),
    ...panels.flatMap((panel, n) => drawPanel(panel, series, unit, TOP + n * (PANEL_HEIGHT + PANEL_GAP))),
    '</svg>',
  ];
  return `${lines.join('\n')}\n`;
}

function drawPanel(panel: Panel, series: readonly string[], unit: string, top: number): string[] {
  const { name, groups } = panel;
  const bottom = top + PANEL_HEIGHT;
  const scale = logScale([
    ...bars([panel]).flatMap(({ value, least, most }) => [value, least, most]),
    ...groups.map(({ goal }) => goal?.value ?? null),
  ]);
  const y = (value: number): number => round(bottom - PANEL_HEIGHT * scale.share(value));
  const groupWidth = (WIDTH - LEFT - RIGHT) / groups.length;
  const barWidth = round((groupWidth * BAR_SHARE) / series.length);
  return [
    text(LEFT, top - 22, name, 'start', 'font-weight="600"'),
    text(LEFT - 8, top - 22, unit, 'end', `fill="${COLOURS.faint}"`),
    ...scale.ticks.flatMap((tick) => [
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick)}" y2="${y(tick)}" stroke="${COLOURS.grid}"/>`,
      text(LEFT - 8, y(tick) + 4, String(tick), 'end', `fill="${COLOURS.faint}"`),
    ]),
    ...groups.flatMap((group, at) => {
      const left = LEFT + at * groupWidth;
      const inset = (groupWidth * (1 - BAR_SHARE)) / 2;
      return [
        text(round(left + groupWidth / 2), bottom + 18, group.name, 'middle'),
        ...group.bars.flatMap((bar) => {
          const n = series.indexOf(bar.series);
          return drawBar(bar, colour(n), round(left + inset + n * barWidth), barWidth, bottom, y);
        }),
        ...(group.goal === null ? [] : drawGoal(group.goal, left, groupWidth, bottom, y(group.goal.value))),
      ];
    }),
  ];
}

function drawBar(
  { value, least, most, words }: Bar,
  fill: string,
  left: number,
  width: number,
  bottom: number,
  y: (value: number) => number,
): string[] {
  const middle = round(left + width / 2);
  const label = (at: number): string => text(middle, round(at - 5), words, 'middle', 'font-size="10.5"');
  if (value === null) return [label(bottom)];
  return [
    `<rect x="${left}" y="${y(value)}" width="${round(width - 3)}" height="${round(bottom - y(value))}" fill="${fill}"/>`,
    ...(least === null || most === null
      ? []
      : [
          `<line x1="${middle}" x2="${middle}" y1="${y(most)}" y2="${y(least)}" stroke="${COLOURS.text}" stroke-opacity="0.55"/>`,
        ]),
    label(y(Math.max(value, most ?? value))),
  ];
}

/** Its words stand below the group's name, since bars may be anywhere near the line. */
function drawGoal({ words }: Goal, left: number, width: number, bottom: number, y: number): string[] {
  const style = `stroke="${COLOURS.goal}" stroke-width="1.5" stroke-dasharray="5 4"`;
  return [
    `<line x1="${round(left + 6)}" x2="${round(left + width - 6)}" y1="${y}" y2="${y}" ${style}/>`,
    text(round(left + width / 2), bottom + 33, words, 'middle', `fill="${COLOURS.goal}" font-size="10.5"`),
  ];
}

interface LogScale {
  /** Powers of ten from below the least to above the greatest. */
  readonly ticks: readonly number[];
  /** Where a value lies between the first tick (0) and the last (1). */
  share(value: number): number;
}

function logScale(values: readonly (number | null)[]): LogScale {
  const drawn = values.filter((value) => value !== null && value > 0) as number[];
  const first = Math.floor(Math.log10(Math.min(...drawn, 1)));
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(...drawn, 1))));
  return {
    ticks: Array.from({ length: last - first + 1 }, (_, n) => Number(`1e${first + n}`)),
    share: (value) => Math.min(1, Math.max(0, (Math.log10(value) - first) / (last - first))),
  };
}

function bars(panels: readonly Panel[]): Bar[] {
  return panels.flatMap(({ groups }) => groups.flatMap((group) => group.bars));
}

function colour(series: number): string {
  return COLOURS.series[series % COLOURS.series.length] ?? COLOURS.text;
}

function text(x: number, y: number, words: string, anchor: 'start' | 'middle' | 'end', more = ''): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}"${more && ` ${more}`}>${escape(words)}</text>`;
}

function escape(words: string): string {
  return words
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}
