import t from 'tap';
import { openOutput, printable } from '../../../src/control/cli/output.js';

function paintedOn(isTTY: boolean, environment: Record<string, string>): string {
  return openOutput({ write: () => true, isTTY, columns: 100 }, environment, false).paint('red', 'x');
}

void t.test('colours only on a terminal that wants them', (t) => {
  t.equal(paintedOn(true, {}), '\x1b[31mx\x1b[39m');
  t.equal(paintedOn(true, { NO_COLOR: '' }), '\x1b[31mx\x1b[39m', 'an empty NO_COLOR says nothing');
  t.equal(paintedOn(true, { NO_COLOR: '1' }), 'x');
  t.equal(paintedOn(true, { TERM: 'dumb' }), 'x');
  t.equal(paintedOn(false, {}), 'x');
  t.end();
});

void t.test('columns are those of the terminal, and none of a pipe', (t) => {
  t.equal(openOutput({ write: () => true, isTTY: true, columns: 132 }, {}, false).columns, 132);
  t.equal(openOutput({ write: () => true }, {}, false).columns, null);
  t.end();
});

void t.test('each print and document is one whole line', (t) => {
  let written = '';
  const output = openOutput(
    { write: (text: string | Uint8Array) => ((written += String(text)), true) },
    {},
    true,
  );
  output.print('hello');
  output.document({ a: 'two\nlines' });
  t.equal(written, 'hello\n{"a":"two\\nlines"}\n');
  t.end();
});

void t.test('what others wrote cannot drive the terminal', (t) => {
  t.equal(printable('a\x1b[2Jb\nc\x7f\x9bd ü'), 'a?[2Jb?c??d ü');
  t.end();
});
