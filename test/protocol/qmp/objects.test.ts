// What a QMP server sends is cut into objects whichever way it comes, and nothing that a peer sends is kept without bound.
import fc from 'fast-check';
import t from 'tap';
import { VmmError } from '../../../protocol/adopted.js';
import { decodeMessage } from '../../../protocol/qmp/messages.js';
import { MAX_OBJECT_BYTES, QmpObjects } from '../../../protocol/qmp/objects.js';

/** The bytes in pieces that end at these places. */
function pieces(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const ends = [...new Set(cuts.map((cut) => cut % (bytes.length + 1))), bytes.length].sort((a, b) => a - b);
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
}

const json = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 4 });

void t.test('objects come out as they went in, on one line or several, wherever the stream is cut', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(json, fc.constantFrom(0, 4), fc.constantFrom('', '\r\n', ' \t\n')), { maxLength: 5 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      (objects, cuts) => {
        const text = objects
          .map(([object, indent, end]) => JSON.stringify(object, null, indent) + end)
          .join('');
        const reader = new QmpObjects();
        const got = pieces(Buffer.from(text), cuts).flatMap((piece) => reader.push(piece));
        t.same(
          got.map((one) => JSON.parse(one) as unknown),
          objects.map(([object]) => JSON.parse(JSON.stringify(object)) as unknown),
        );
      },
    ),
  );
  t.end();
});

void t.test('of any bytes come texts, or a VmmError', (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 400 }),
    fc
      .string({ unit: fc.constantFrom(...'{ } [ ] " \\ \n 1 a : , é'.split(' ')) })
      .map((text) => Buffer.from(text)),
  );
  fc.assert(
    fc.property(fc.array(bytes, { maxLength: 6 }), (chunks) => {
      const reader = new QmpObjects();
      try {
        for (const chunk of chunks) {
          for (const text of reader.push(chunk)) {
            // Which bracket ends which is for the parser of messages.
            t.match(text, /^\{[^]*[}\]]$/);
            decodeMessage(text);
          }
        }
      } catch (error) {
        if (!(error instanceof VmmError)) throw error;
      }
    }),
    { numRuns: 1000 },
  );
  t.end();
});

void t.test('an object has a bound in bytes, whichever pieces it comes in', (t) => {
  const half = Buffer.alloc(MAX_OBJECT_BYTES / 2, 'a');
  const long = new QmpObjects();
  long.push(Buffer.from('{"a":"'));
  long.push(half);
  t.throws(() => long.push(half), VmmError);
  const fits = new QmpObjects();
  const text = JSON.stringify({ a: 'a'.repeat(MAX_OBJECT_BYTES - 8) });
  t.same(fits.push(Buffer.from(text)), [text], 'the largest');
  t.throws(() => fits.push(Buffer.from(JSON.stringify({ a: 'a'.repeat(MAX_OBJECT_BYTES - 7) }))), VmmError);
  t.end();
});

void t.test('nesting has a bound, and each object has it anew', (t) => {
  const nested = (depth: number): Buffer =>
    Buffer.from('{"a":' + '['.repeat(depth) + ']'.repeat(depth) + '}');
  const reader = new QmpObjects();
  t.equal(reader.push(nested(63)).length, 1);
  t.equal(reader.push(nested(63)).length, 1);
  t.throws(() => reader.push(nested(64)), VmmError);
  t.end();
});

void t.test('a peer that speaks something else is found out at its first byte', (t) => {
  t.throws(() => new QmpObjects().push(Buffer.from('HTTP/1.1 400 Bad Request\r\n')), VmmError);
  t.throws(() => new QmpObjects().push(Buffer.from('\r\n[]')), VmmError);
  t.end();
});
