import t from 'tap';
import { barPlot, type Bar } from '../../bench/plot.js';

function bar(series: string, value: number | null, least = value, most = value): Bar {
  return { series, value, least, most, words: value === null ? 'none' : `${value}` };
}

const XML = barPlot({
  title: 'a < b & c',
  unit: 'GiB/s',
  panels: [
    {
      name: 'small pages',
      groups: [
        {
          name: 'in "order"',
          bars: [bar('ours', 10, 5, 20), bar('theirs', 0.1)],
          goal: { value: 1, words: 'goal: 10 x' },
        },
        { name: 'random', bars: [bar('ours', null), bar('theirs', 1)], goal: null },
      ],
    },
    { name: 'large pages', groups: [{ name: 'in order', bars: [bar('ours', 300)], goal: null }] },
  ],
});

function attributes(tag: string): Record<string, string>[] {
  return [...XML.matchAll(new RegExp(`<${tag} ([^>]*?)/?>`, 'g'))].map(([, text = '']) =>
    Object.fromEntries(
      [...text.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, name = '', value = '']) => [name, value]),
    ),
  );
}

/** Bars from left to right and from the top: squares of the legend are 14 wide, and the paper has a radius. */
const BARS = attributes('rect').filter(({ rx, width }) => rx === undefined && width !== '14');

void t.test('bars are as high as the logarithm of their value', (t) => {
  t.equal(BARS.length, 4, 'none for a missing value');
  const [ten, tenth, one] = BARS.map(({ height }) => Number(height));
  t.equal(tenth, 0, 'the scale begins at the power of ten below');
  t.ok(Math.abs((ten ?? 0) - 2 * (one ?? 0)) < 0.3, 'two decades above it against one');
  t.end();
});

void t.test('ticks, whiskers and goals stand at their values', (t) => {
  const tickAt = (value: string): number =>
    Number(new RegExp(`y="([\\d.]+)" text-anchor="end"[^>]*>${value}</text>`).exec(XML)?.[1]) - 4;
  t.equal(Number(BARS[0]?.['y']), tickAt('10'));
  const goal = attributes('line').find((line) => line['stroke-dasharray'] !== undefined);
  t.equal(Number(goal?.['y1']), tickAt('1'));
  const whisker = attributes('line').find((line) => line['stroke-opacity'] !== undefined);
  t.ok(Number(whisker?.['y1']) < tickAt('10') && Number(whisker?.['y2']) > tickAt('10'));
  t.end();
});

void t.test('a series keeps its place and its colour', (t) => {
  const [ours, theirs, other, again] = BARS;
  t.equal(ours?.['fill'], again?.['fill']);
  t.equal(theirs?.['fill'], other?.['fill']);
  t.not(ours?.['fill'], theirs?.['fill']);
  t.ok(Number(ours?.['x']) < Number(theirs?.['x']) && Number(theirs?.['x']) < Number(other?.['x']));
  t.end();
});

void t.test('all that is drawn lies inside the picture, and words are escaped', (t) => {
  const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(XML) ?? [];
  for (const { x, y, width: wide = '0', height: high = '0' } of [
    ...attributes('rect'),
    ...attributes('text'),
  ]) {
    t.ok(Number(x ?? 0) >= 0 && Number(x ?? 0) + Number(wide) <= Number(width));
    t.ok(Number(y ?? 0) >= 0 && Number(y ?? 0) + Number(high) <= Number(height));
  }
  t.match(XML, '<title>a &lt; b &amp; c</title>');
  t.match(XML, 'in &quot;order&quot;');
  t.end();
});
