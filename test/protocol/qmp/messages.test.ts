import fc from 'fast-check';
import t from 'tap';
import { decodeGuestStats } from '../../../protocol/qmp/balloon.js';
import { VmmError } from '../../../protocol/adopted.js';
import { decodeMessage, encodeCommand } from '../../../protocol/qmp/messages.js';

void t.test('the messages of the specification', (t) => {
  t.same(
    decodeMessage(
      '{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": "Debian"}, "capabilities": ["oob"]}}',
    ),
    { kind: 'greeting', version: '11.1.3' },
  );
  t.same(decodeMessage('{"return": {"actual": 7}, "id": 3}'), {
    kind: 'answer',
    id: 3,
    value: { actual: 7 },
  });
  t.match(decodeMessage('{"id": 4, "error": {"class": "DeviceNotActive", "desc": "No balloon"}}'), {
    kind: 'refusal',
    id: 4,
    error: { message: 'No balloon', errorClass: 'DeviceNotActive' },
  });
  t.same(
    decodeMessage(
      '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "BALLOON_CHANGE", "data": {"actual": 9}}',
    ),
    { kind: 'event', name: 'BALLOON_CHANGE', data: { actual: 9 } },
  );
  t.same(decodeMessage('{"event": "STOP"}'), { kind: 'event', name: 'STOP', data: {} });
  t.equal(
    encodeCommand(5, 'balloon', { value: 1 }),
    '{"execute":"balloon","arguments":{"value":1},"id":5}\n',
  );
  t.end();
});

void t.test('any JSON is a message or a VmmError, and no word of a peer is long or moves a terminal', (t) => {
  const word = fc.constantFrom(
    'QMP',
    'return',
    'error',
    'event',
    'data',
    'id',
    'class',
    'desc',
    'version',
    'qemu',
  );
  const json = fc.letrec((tie) => ({
    value: fc.oneof(fc.jsonValue(), fc.string({ unit: 'binary', maxLength: 500 }), tie('object')),
    object: fc.dictionary(word, tie('value'), { maxKeys: 4 }),
  })).object;
  fc.assert(
    fc.property(fc.oneof(json, fc.jsonValue()), (value) => {
      try {
        const message = decodeMessage(JSON.stringify(value));
        if (message.kind !== 'refusal') return;
        t.ok(message.error.message.length <= 200);
        t.notMatch(message.error.message, /\p{C}/u);
      } catch (error) {
        if (!(error instanceof VmmError)) throw error;
      }
    }),
  );
  t.end();
});

void t.test(
  'statistics by their names in the specification, without those that the guest did not send',
  (t) => {
    const { values, sentAtSeconds } = decodeGuestStats(
      JSON.parse(
        '{"stats": {"stat-htlb-pgalloc": 18446744073709551615, "stat-free-memory": 4096, "stat-direct-reclaims": 3, "stat-of-tomorrow": 5}, "last-update": 1700000000}',
      ),
    );
    t.same(
      [...values],
      [
        ['VIRTIO_BALLOON_S_MEMFREE', 4096],
        ['VIRTIO_BALLOON_S_DIRECT_RECLAIM', 3],
      ],
    );
    t.equal(sentAtSeconds, 1_700_000_000);
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        t.ok(decodeGuestStats(value).sentAtSeconds >= 0);
        t.ok(decodeGuestStats({ stats: value, 'last-update': value }).values.size <= 16);
      }),
    );
    t.end();
  },
);
