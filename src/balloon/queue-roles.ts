import { BalloonFeature, BALLOON_QUEUES, type BalloonQueue } from '../../protocol/virtio/balloon.js';
import { hasFeature, type FeatureBits } from '../../protocol/virtio/features.js';

const OPTIONAL: readonly (readonly [BalloonQueue, number])[] = [
  ['stats', BalloonFeature.VIRTIO_BALLOON_F_STATS_VQ],
  ['hint', BalloonFeature.VIRTIO_BALLOON_F_FREE_PAGE_HINT],
  ['reporting', BalloonFeature.VIRTIO_BALLOON_F_REPORTING],
];

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
 */
export function queueRole(
  index: number,
  acked: FeatureBits,
  configured: readonly number[],
): BalloonQueue | null {
  if (index < 2) return BALLOON_QUEUES[index] ?? null;
  const roles = OPTIONAL.filter(([, bit]) => hasFeature(acked, bit)).map(([role]) => role);
  const optional = configured.filter((queue) => queue >= 2);
  if (optional.length < roles.length) return null;
  if (optional.length === roles.length) return roles[optional.indexOf(index)] ?? null;
  const fixed = BALLOON_QUEUES[index];
  return fixed !== undefined && roles.includes(fixed) ? fixed : null;
}
