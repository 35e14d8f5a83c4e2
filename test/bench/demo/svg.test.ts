import fc from 'fast-check';
import t from 'tap';
import { svg } from '../../../bench/demo/svg.js';
import { anyRecording, GIVING } from './recordings.js';

/** Throws unless every tag is closed and nothing is left unescaped. */
function checkWellFormed(xml: string): void {
  const open: string[] = [];
  for (const [, closing, name = '', selfClosing] of xml.matchAll(
    /<(\/?)(\w+)(?: [\w-]+="[^"<&]*")*(\/?)>/g,
  )) {
    if (closing === '/') {
      if (open.pop() !== name) throw new Error(`</${name}> closes nothing`);
    } else if (selfClosing !== '/') open.push(name);
  }
  if (open.length > 0) throw new Error(`not closed: ${open.join()}`);
  const words = xml.replaceAll(/<[^<>]*>/g, '').replaceAll(/&(amp|lt|gt);/g, '');
  if (/[<>&]/.test(words)) throw new Error(`not escaped: ${words}`);
}

function polylines(xml: string): [x: number, y: number][][] {
  return [...xml.matchAll(/<polyline points="([^"]*)"/g)].map(([, points = '']) =>
    points
      .split(' ')
      .filter((pair) => pair !== '')
      .map((pair) => {
        const [x = NaN, y = NaN] = pair.split(',').map(Number);
        return [x, y];
      }),
  );
}

void t.test('each curve has a point for each sample, on the scale of the labels', (t) => {
  const xml = svg(GIVING);
  checkWellFormed(xml);
  const [host = [], guest = []] = polylines(xml);
  t.equal(host.length, GIVING.samples.length);
  t.equal(guest.length, GIVING.samples.length);
  const heightOf = (label: string) => {
    const at = new RegExp(`y="([\\d.]+)"[^>]*>${label}</text>`).exec(xml)?.[1];
    return Number(at) - 4;
  };
  t.equal(host[0]?.[1], heightOf('1536'));
  t.equal(host[4]?.[1], heightOf('512'));
  t.ok((guest[2]?.[1] ?? 0) < heightOf('1536') && (guest[2]?.[1] ?? 0) > heightOf('2048'));
  t.match(xml, '>set --balloon 1G &amp; &lt;wait&gt;<');
  t.end();
});

void t.test('any recording becomes a well-formed picture that holds all its points', (t) => {
  fc.assert(
    fc.property(anyRecording, (recording) => {
      const xml = svg(recording);
      checkWellFormed(xml);
      const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(xml) ?? [];
      return polylines(xml)
        .flat()
        .every(([x, y]) => x >= 0 && x <= Number(width) && y >= 0 && y <= Number(height));
    }),
  );
  t.end();
});
