import fc from 'fast-check';
import t from 'tap';
import { alignColumns, columnsOf, shorten, wrap } from '../../../src/control/cli/text.js';

void t.test('columns', (t) => {
  t.strictSame(
    alignColumns(
      [
        ['VM', 'RAM'],
        ['web1', '4 GiB'],
        ['x', '-'],
      ],
      '<>',
    ),
    ['VM      RAM', 'web1  4 GiB', 'x         -'],
  );
  t.strictSame(alignColumns([['a', '']], '<<'), ['a'], 'no blanks at the end');
  t.end();
});

void t.test('wrap keeps all words in order and the width where words allow', (t) => {
  const word = fc.stringMatching(/^[a-z]{1,12}$/);
  fc.assert(
    fc.property(fc.array(word), fc.integer({ min: 1, max: 30 }), (words, width) => {
      const lines = wrap(words.join(' '), width);
      return (
        lines.join(' ') === words.join(' ') &&
        lines.every((line) => line !== '' && (line.length <= width || !line.includes(' ')))
      );
    }),
  );
  t.end();
});

void t.test('shorten', (t) => {
  t.equal(shorten('machine', 7), 'machine');
  t.equal(shorten('machine1', 7), 'machin…');
  t.equal(shorten('仮想機械', 7), '仮想機…', 'letters that fill two columns');
  t.equal(columnsOf('e\u0301'), 1, 'and marks that fill none');
  t.strictSame(
    alignColumns(
      [
        ['仮', 'a'],
        ['xyz', 'b'],
      ],
      '<<',
    ),
    ['仮   a', 'xyz  b'],
  );
  t.end();
});
