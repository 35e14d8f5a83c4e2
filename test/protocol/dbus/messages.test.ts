// The messages of D-Bus: those of a real bus, cut anywhere, and bytes that are none.
import fc from 'fast-check';
import t from 'tap';
import { VmmError } from '../../../protocol/adopted.js';
import { DbusMessages, encodeCall, MAX_MESSAGE_BYTES } from '../../../protocol/dbus/messages.js';
import { DbusReader, DbusWriter } from '../../../protocol/dbus/values.js';
import { OBJECT, seen } from '../../support/dbus-frames.js';

void t.test('a call is sent as the bus understood it', (t) => {
  const call = {
    destination: 'org.libvirt',
    path: OBJECT,
    interface: 'org.libvirt.Domain',
    member: 'SetMemory',
    signature: 'tu',
    args: [400 * 1024, 1],
  };
  t.same(Buffer.from(encodeCall(7, call)), seen('sent'));
  t.end();
});

void t.test('answers, refusals and signals of libvirt-dbus, cut anywhere', (t) => {
  const stream = Buffer.concat([seen('done'), seen('balloonChange'), seen('refused')]);
  const whole = new DbusMessages().push(stream);
  t.match(whole, [
    { kind: 'answer', to: 7, values: [] },
    {
      kind: 'signal',
      path: OBJECT,
      interface: 'org.libvirt.Domain',
      member: 'BalloonChange',
      values: [400 * 1024],
    },
    {
      kind: 'refusal',
      to: 4,
      error: { message: /^Domain not found: no domain with matching uuid/, errorClass: 'org.libvirt.Error' },
    },
  ]);
  fc.assert(
    fc.property(fc.array(fc.nat(stream.length)), (cuts) => {
      const messages = new DbusMessages();
      const ends = [...cuts.sort((a, b) => a - b), stream.length];
      let at = 0;
      const pieces = ends.map((end) => stream.subarray(at, (at = end)));
      t.same(
        pieces.flatMap((piece) => messages.push(piece)),
        whole,
      );
    }),
    { numRuns: 50 },
  );
  t.end();
});

void t.test('values of all types, also big-endian', (t) => {
  const written = new DbusWriter().values('ysutgi', [7, 'é', 4e9, 2n ** 40n, 'a{sv}', 1]).done();
  t.same(new DbusReader(written, true).values('ysutgi'), [7, 'é', 4e9, 2 ** 40, 'a{sv}', 1]);
  const bytes = Uint8Array.from([0, 0, 0, 1, 0, 0, 0, 6, 0, 7, 0, 8, 0, 9]);
  t.same(new DbusReader(bytes, false).values('baq'), [true, [7, 8, 9]]);
  const variant = Uint8Array.from([
    4, 0x61, 0x28, 0x79, 0x29, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6,
  ]);
  t.same(new DbusReader(variant, true).values('v'), [[[5], [6]]], 'a variant that holds an array of structs');
  t.end();
});

void t.test('bytes that are no messages', (t) => {
  const head = (bodyBytes: number): Uint8Array =>
    new DbusWriter().values('yyyyuuu', [0x6c, 2, 0, 1, bodyBytes, 1, 0]).done();
  t.throws(() => new DbusMessages().push(new TextEncoder().encode('ERROR: go away, nobody is here')), {
    name: 'VmmError',
    message: /something else than messages of D-Bus/,
  });
  t.throws(() => new DbusMessages().push(head(MAX_MESSAGE_BYTES)), { message: /more than 4194304 bytes/ });
  for (const [signature, bytes] of [
    ['a()', [8, 0, 0, 0, 0, 0, 0, 0]],
    ['s', [255, 0, 0, 0, 65]],
    ['u', [1, 2]],
    ['a', [0, 0, 0, 0]],
    ['(u', [0, 0, 0, 0]],
    ['z', [0]],
    ['v', [0, 0]],
    ['ay', [9, 0, 0, 0, 1]],
    ['aq', [3, 0, 0, 0, 1, 2, 3, 4]],
    [`${'a'.repeat(40)}y`, new Array<number>(200).fill(64)],
  ] as const) {
    t.throws(() => new DbusReader(Uint8Array.from(bytes), true).values(signature), VmmError, signature);
  }
  t.end();
});

void t.test('any bytes are messages or a VmmError', (t) => {
  const near = fc
    .tuple(
      fc.constantFrom('done', 'balloonChange', 'memoryStats', 'refused'),
      fc.array(fc.tuple(fc.nat(400), fc.nat(255))),
    )
    .map(([name, changes]) => {
      const bytes = Uint8Array.from(seen(name as 'done'));
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), near), (bytes) => {
      try {
        new DbusMessages().push(bytes);
      } catch (error) {
        t.type(error, VmmError);
      }
    }),
    { numRuns: 2000 },
  );
  t.end();
});
