import t from 'tap';
import { decodeStats, STAT_NAMES, statName } from '../../../protocol/virtio/balloon.js';
import { BalloonFeature } from '../../../protocol/virtio/balloon.js';
import { featureMask, featureNames, hasFeature, VirtioFeature } from '../../../protocol/virtio/features.js';
import { crossedEvent } from '../../../protocol/virtio/ring-split.js';
import fc from 'fast-check';

void t.test('statistics keep their specification names, unknown tags their number', (t) => {
  const bytes = Buffer.from(
    '0400' + '0000004000000000' + '1000' + '0500000000000000' + '0400' + '0000002000000000',
    'hex',
  );
  t.same(
    [...decodeStats(bytes)],
    [
      ['VIRTIO_BALLOON_S_MEMFREE', 0x20000000],
      ['tag-16', 5],
    ],
  );
  t.equal(STAT_NAMES.length, 16);
  t.equal(statName(15), 'VIRTIO_BALLOON_S_DIRECT_RECLAIM');
  t.equal(statName(65535), 'tag-65535');
  t.end();
});

void t.test('a value that the guest does not know is left out', (t) => {
  const bytes = Buffer.from('0500' + 'ffffffffffffffff' + '0400' + 'feffffffffffffff', 'hex');
  t.same([...decodeStats(bytes).keys()], ['VIRTIO_BALLOON_S_MEMFREE']);
  t.end();
});

void t.test('feature masks and names', (t) => {
  const bits = featureMask(0, 5, 32, 63);
  t.same(featureNames(bits, BalloonFeature, VirtioFeature), [
    'VIRTIO_BALLOON_F_MUST_TELL_HOST',
    'VIRTIO_BALLOON_F_REPORTING',
    'VIRTIO_F_VERSION_1',
    'bit-63',
  ]);
  t.ok(hasFeature(bits, 63));
  t.notOk(hasFeature(bits, 1));
  t.end();
});

void t.test('an event is crossed exactly when it lies among the indices just published', (t) => {
  fc.assert(
    fc.property(fc.nat(65535), fc.nat(65535), fc.nat(300), (event, before, moved) => {
      const published = Array.from({ length: moved }, (_, n) => (before + n) & 0xffff);
      return crossedEvent(event, (before + moved) & 0xffff, before) === published.includes(event);
    }),
  );
  t.end();
});
