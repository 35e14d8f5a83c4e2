/**
 * The kinds of device that a VM may have, in one table. The fleet, the configuration, verdicts and limits go by its rows
 * and name no kind themselves: a further kind is one more row here, and the class that serves it.
 */
import { BalloonFeature, type BalloonFeatureName } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature, type CacheBalloonFeatureName } from '../../protocol/virtio/cache-balloon.js';
import { featureMask, VirtioFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { Balloon, type BalloonObserver } from '../balloon/balloon.js';
import { CacheBalloon } from '../balloon/cache-balloon.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { DeviceHost } from '../virtqueue/device.js';

/** The kinds of device, the one that speaks for its VM first. */
export const DEVICE_KINDS = ['balloon', 'cache-balloon'] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

/**
 * Features that may be named. A packed ring has no used index in guest memory from which a daemon that was killed could
 * resume, so it is offered only where a configuration asks for it.
 */
export type OfferableFeature = BalloonFeatureName | CacheBalloonFeatureName | 'VIRTIO_F_RING_PACKED';

/** The options of a device: its features, seconds between statistics (0: never), seconds that a discard may wait. */
export interface DeviceOptions {
  kind: DeviceKind;
  features: readonly OfferableFeature[];
  statsIntervalSeconds: number;
  discardDelaySeconds: number;
  /** Whether limits may be set on a cgroup that holds other processes as well. */
  sharedCgroup: boolean;
}

/** A balloon of some kind, served in a session. */
export type AnyBalloon = Balloon | CacheBalloon;

/** One row of the table. */
export interface Kind {
  /** The name of the device, and of its target, in messages. */
  readonly words: string;
  readonly targetWords: string;
  /** The module of the guest's driver. */
  readonly driver: 'virtio_balloon' | 'virtio_cache_balloon';
  /** The features that devices of this kind alone have. */
  readonly features: readonly OfferableFeature[];
  /** Its target is a limit: the guest fills and empties the device as it likes. */
  readonly sizesItself: boolean;
  make(
    memory: GuestMemory,
    host: DeviceHost,
    observer: BalloonObserver,
    offered: FeatureBits,
    delayMs: number,
  ): AnyBalloon;
}

export const KINDS: Readonly<Record<DeviceKind, Kind>> = {
  balloon: {
    words: 'balloon',
    targetWords: 'balloon target',
    driver: 'virtio_balloon',
    features: Object.keys(BalloonFeature) as BalloonFeatureName[],
    sizesItself: false,
    make: (memory, host, observer, offered, delayMs) => new Balloon(memory, host, observer, offered, delayMs),
  },
  'cache-balloon': {
    words: 'page cache balloon',
    targetWords: 'page cache balloon limit',
    driver: 'virtio_cache_balloon',
    features: Object.keys(CacheBalloonFeature) as CacheBalloonFeatureName[],
    sizesItself: true,
    make: (memory, host, observer, offered) => new CacheBalloon(memory, host, observer, offered),
  },
};

export const OFFERABLE: readonly OfferableFeature[] = [
  ...DEVICE_KINDS.flatMap((kind) => KINDS[kind].features),
  'VIRTIO_F_RING_PACKED',
];

/** Whether a configuration may name this feature. */
export function isOfferable(name: string): name is OfferableFeature {
  return (OFFERABLE as readonly string[]).includes(name);
}

/** The bits that are offered for these features, with those that every split ring can be served with. */
export function offeredBits(features: readonly OfferableFeature[]): FeatureBits {
  const bits = {
    ...BalloonFeature,
    ...CacheBalloonFeature,
    VIRTIO_F_RING_PACKED: VirtioFeature.VIRTIO_F_RING_PACKED,
  };
  return featureMask(
    ...features.map((name) => bits[name]),
    VirtioFeature.VIRTIO_F_INDIRECT_DESC,
    VirtioFeature.VIRTIO_F_EVENT_IDX,
    VirtioFeature.VIRTIO_F_VERSION_1,
  );
}
