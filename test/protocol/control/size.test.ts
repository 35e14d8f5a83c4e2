import fc from 'fast-check';
import t from 'tap';
import { formatSize, lackedUnit, parseSize, SizeError, SIZE_FORMS } from '../../../protocol/control/size.js';

void t.test('accepted forms', (t) => {
  const forms: [string, number][] = [
    ['0', 0],
    ['4096', 4096],
    ['512 B', 512],
    ['1K', 1024],
    ['512M', 512 * 1024 ** 2],
    ['512m', 512 * 1024 ** 2],
    ['2G', 2 * 1024 ** 3],
    ['1.5GiB', 1.5 * 1024 ** 3],
    ['1.5 GiB', 1.5 * 1024 ** 3],
    ['1TiB', 1024 ** 4],
    [' 1T ', 1024 ** 4],
    ['0.1K', 102],
  ];
  for (const [text, bytes] of forms) t.equal(parseSize(text), bytes, text);
  t.end();
});

void t.test('junk is refused in one line that shows the accepted forms', (t) => {
  const junk = [
    '',
    ' ',
    'G',
    '-1',
    '+1',
    '1.5',
    '1e9',
    '0x10',
    '1,5G',
    '2GB',
    '2Gi',
    '1 2',
    '5P',
    '1G\n1G',
    '١',
  ];
  for (const text of [...junk, 'x'.repeat(1000)]) {
    try {
      parseSize(text);
      t.fail(JSON.stringify(text));
    } catch (error) {
      t.type(error, SizeError);
      const { message } = error as SizeError;
      t.ok(message.includes(SIZE_FORMS), message);
      t.ok(message.length < 150 && !message.includes('\n'), 'one short line');
    }
  }
  t.throws(() => parseSize('8192T'), SizeError);
  t.throws(() => parseSize('9'.repeat(400)), SizeError, 'beyond what a number holds');
  t.equal(parseSize('8191T'), 8191 * 1024 ** 4);
  t.end();
});

void t.test('format', (t) => {
  t.equal(formatSize(0), '0 B');
  t.equal(formatSize(1023), '1023 B');
  t.equal(formatSize(1024), '1 KiB');
  t.equal(formatSize(1.5 * 1024 ** 3), '1.5 GiB');
  t.equal(formatSize(512 * 1024 ** 2), '512 MiB');
  t.equal(formatSize(1024 ** 3 - 1), '1 GiB', 'never 1024 MiB');
  t.equal(formatSize(5000 * 1024 ** 4), '5000 TiB');
  t.end();
});

void t.test('what format writes, parse reads back within the digits shown', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 8191 * 1024 ** 4 }), (bytes) => {
      const text = formatSize(bytes);
      const error = Math.abs(parseSize(text) - bytes);
      return error <= Math.max(1, bytes * 0.05) && text.length <= 8;
    }),
  );
  t.end();
});

void t.test('whole binary multiples survive exactly', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1023 }), fc.constantFrom('K', 'M', 'G', 'T'), (count, unit) => {
      const bytes = parseSize(`${count}${unit}`);
      return bytes === count * 1024 ** ' KMGT'.indexOf(unit) && parseSize(formatSize(bytes)) === bytes;
    }),
  );
  t.end();
});

void t.test('a number that lacks its unit gets one by which it is the size of a guest', (t) => {
  const meant: [string, string | null][] = [
    ['10', '10M'],
    [' 512 ', '512M'],
    ['16384', '16384M'],
    ['16385', '16385K'],
    ['524288', '524288K'],
    ['1048576', null],
    ['512M', null],
    ['1.5', null],
  ];
  for (const [text, unit] of meant) t.equal(lackedUnit(text), unit, text);
  t.end();
});
