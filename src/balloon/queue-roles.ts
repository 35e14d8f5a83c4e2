import { BalloonFeature, BALLOON_QUEUES, type BalloonQueue } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature } from '../../protocol/virtio/cache-balloon.js';
import { featureMask, hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';

const OPTIONAL: readonly (readonly [BalloonQueue, number])[] = [
  ['stats', BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ],
  ['hint', BalloonFeature.VIRTIO_BALLOON_F_FREE_PAGE_HINT],
  ['reporting', BalloonFeature.VIRTIO_BALLOON_F_REPORTING],
  ['cache', CacheBalloonFeature.VIRTIO_CACHE_BALLOON_F_RANGES],
  ['reclaim', CacheBalloonFeature.VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM],
];

/** The features of the page cache balloon, without which a VMM's device is a balloon all the same. */
const PLAIN = ~featureMask(...Object.values(CacheBalloonFeature));

/** Queues that a VMM has to have for a device offering `features`: with fewer, a driver cannot start. */
export function leastQueues(features: FeatureBits): number {
  return queueCount(features & PLAIN);
}

/** Queues that a device offering `features` has: inflate, deflate and those of its features. */
export function queueCount(features: FeatureBits): number {
  return 2 + OPTIONAL.filter(([, bit]) => hasFeature(features, bit)).length;
}

/**
 * What queue `index` is for. The specification fixes numbers 0 to 4, Linux leaves out queues whose feature was not
 * acked, some VMMs those whose feature was not offered. All of them keep the order, so the optional queues that
 * the driver configured are, ascending, those of the acked features, whichever numbering was used.
 *
 * Null: not known before more queues are configured. With more configured than acked (a frontend that sets up
 * every queue), the specification's numbers decide.
 *
 * `present`: queues that the VMM has, as far as that is known. With too few for the page cache balloon there is none, whatever
 * the driver acked.
 */
export function queueRole(
  index: number,
  acked: FeatureBits,
  configured: readonly number[],
  present = Infinity,
): BalloonQueue | null {
  if (index < 2) return BALLOON_QUEUES[index] ?? null;
  const usable = queueCount(acked) > present ? acked & PLAIN : acked;
  const roles = OPTIONAL.filter(([, bit]) => hasFeature(usable, bit)).map(([role]) => role);
  const optional = configured.filter((queue) => queue >= 2);
  if (optional.length < roles.length) return null;
  if (optional.length === roles.length) return roles[optional.indexOf(index)] ?? null;
  const fixed = BALLOON_QUEUES[index];
  return fixed !== undefined && roles.includes(fixed) ? fixed : null;
}
