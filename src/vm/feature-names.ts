/** The feature bits of any device: their names, and what they say of its driver. */
import { BalloonFeature } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature } from '../../protocol/virtio/cache-balloon.js';
import { featureNames, hasFeature, VirtioFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { VhostFeature } from '../../protocol/vhost-user/requests.js';

/** Makes the names once for the bits of one device: they are most of the cost of a view, and views are asked for often. */
export class FeatureNames {
  #bits: FeatureBits | null = null;
  #names: string[] = [];

  of(bits: FeatureBits): string[] {
    if (bits !== this.#bits) {
      this.#bits = bits;
      this.#names = featureNames(bits, BalloonFeature, CacheBalloonFeature, VirtioFeature, VhostFeature);
    }
    return this.#names;
  }
}

/** Whether the driver of a balloon must tell before it uses a page of the balloon again. */
export function tellsFirst(features: FeatureBits): boolean {
  return hasFeature(features, BalloonFeature.VIRTIO_BALLOON_F_MUST_TELL_HOST);
}
