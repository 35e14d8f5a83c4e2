import t from 'tap';
import { leastQueues, queueCount, queueRole } from '../../src/balloon/queue-roles.js';
import { BalloonFeature } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature } from '../../protocol/virtio/cache-balloon.js';
import { featureMask, hasFeature } from '../../protocol/virtio/features.js';

const { VIRTIO_CACHE_BALLOON_F_RANGES: RANGES, VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM: TELLS } =
  CacheBalloonFeature;
const PLAIN = Object.values(BalloonFeature);
const ALL = [...PLAIN, RANGES, TELLS];
const OPTIONAL = [
  ['stats', BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ, 2],
  ['hint', BalloonFeature.VIRTIO_BALLOON_F_FREE_PAGE_HINT, 3],
  ['reporting', BalloonFeature.VIRTIO_BALLOON_F_REPORTING, 4],
  ['cache', RANGES, 5],
  ['reclaim', TELLS, 6],
] as const;

function subsets(bits: readonly number[]): number[][] {
  return bits.reduce<number[][]>((sets, bit) => [...sets, ...sets.map((set) => [...set, bit])], [[]]);
}

/** Which number each optional queue gets: by position among `counted` features, or the specification's. */
function numbering(acked: bigint, counted: bigint | 'spec'): Map<string, number> {
  const numbers = new Map<string, number>();
  let next = 2;
  for (const [role, bit, fixed] of OPTIONAL) {
    if (counted !== 'spec' && !hasFeature(counted, bit)) continue;
    if (hasFeature(acked, bit)) numbers.set(role, counted === 'spec' ? fixed : next);
    next++;
  }
  return numbers;
}

void t.test(
  'rule 9: roles are found in every combination of offered and acked bits and every numbering',
  (t) => {
    let checked = 0;
    for (const offered of subsets(ALL)) {
      for (const ackedBits of subsets(offered)) {
        const acked = featureMask(...ackedBits);
        for (const counted of [acked, featureMask(...offered), 'spec' as const]) {
          const numbers = numbering(acked, counted);
          const configured = [0, 1, ...numbers.values()];
          for (const [role, number] of numbers) {
            if (queueRole(number, acked, configured) !== role)
              t.fail(`${role} at ${number} of ${String(offered)}`);
            checked++;
          }
        }
      }
    }
    t.equal(checked, 32_805, 'every optional queue of every combination was looked at');
    t.equal(queueRole(0, 0n, []), 'inflate');
    t.equal(queueRole(1, 0n, []), 'deflate');
    t.end();
  },
);

void t.test('a queue whose number is not decided yet has no role', (t) => {
  const acked = featureMask(1, 5);
  t.equal(queueRole(2, acked, [0, 1, 2]), null);
  t.equal(queueRole(2, acked, [0, 1, 2, 4]), 'stats');
  t.equal(queueRole(4, acked, [0, 1, 2, 4]), 'reporting');
  t.equal(
    queueRole(4, acked, [0, 1, 2, 3, 4]),
    'reporting',
    'all queues set up: numbers of the specification',
  );
  t.equal(queueRole(3, acked, [0, 1, 2, 3, 4]), null, 'a queue of a feature that was not acked');
  t.end();
});

void t.test('a VMM with too few queues for a page cache balloon has none, and the other roles hold', (t) => {
  const acked = featureMask(1, 3, 5, RANGES, TELLS);
  for (const present of [5, 6]) {
    for (const [queue, role] of [
      [2, 'stats'],
      [3, 'hint'],
      [4, 'reporting'],
    ] as const)
      t.equal(queueRole(queue, acked, [0, 1, 2, 3, 4], present), role);
  }
  t.equal(queueRole(2, acked, [0, 1, 2, 3, 4]), null, 'where that is not known, two are waited for');
  t.equal(queueRole(5, acked, [0, 1, 2, 3, 4, 5, 6], 7), 'cache');
  t.end();
});

void t.test('queues needed for the features offered', (t) => {
  t.equal(queueCount(0n), 2);
  t.equal(queueCount(featureMask(0, 2, 4)), 2);
  t.equal(queueCount(featureMask(1)), 3);
  t.equal(queueCount(featureMask(...PLAIN)), 5);
  t.same([queueCount(featureMask(...ALL)), leastQueues(featureMask(...ALL))], [7, 5]);
  t.end();
});
