/**
 * The kinds of device that a VM may have, in one table, and the parts that devices play for a VM. The fleet, targets, views,
 * records, the configuration, verdicts and limits go by rows and name no kind themselves: a further kind is one more row
 * here, and the class that serves it. Only a further part, which is a field of a VM in the control API, takes more.
 */
import { refusal, type NextStep, type RefusalText } from '../../protocol/control/refusal.js';
import type { VmView } from '../../protocol/control/schema.js';
import { BalloonFeature, type BalloonFeatureName } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature, type CacheBalloonFeatureName } from '../../protocol/virtio/cache-balloon.js';
import { featureMask, VirtioFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { Balloon } from '../balloon/balloon.js';
import type { BalloonParts } from '../balloon/base.js';
import { CacheBalloon } from '../balloon/cache-balloon.js';
import type { Device } from '../virtqueue/device.js';

/** The kinds of device that this daemon serves over vhost-user, the one that speaks for its VM first. */
export const DEVICE_KINDS = ['balloon', 'cache-balloon'] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

/** QEMU's own balloon, which QEMU serves and the daemon moves: a kind for each way to QEMU. */
const ADOPTED_KINDS = ['qmp', 'libvirt'] as const;
export type AdoptedKind = (typeof ADOPTED_KINDS)[number];

const ALL_KINDS = [...DEVICE_KINDS, ...ADOPTED_KINDS] as const;
export type AnyKind = (typeof ALL_KINDS)[number];

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
  /** Whether pages on hugetlbfs are discarded that the guest uses again without telling first. */
  discardsUntold: boolean;
}

/** What a balloon is asked for, and what it holds. Sizes are in bytes. */
interface Holding {
  readonly targetBytes: number;
  readonly actualBytes: number;
  readonly totals: Balloon['totals'];
  setTarget(bytes: number): void;
}

/** A balloon of some kind, served in a session. */
export interface AnyBalloon extends Device, Holding {
  /** The page cache balloon that is a part of it; null: it has none, or a driver without. */
  readonly cache: Holding | null;
  /** The driver has not said yet how much it holds, and `actualBytes` is the part of that which was seen. */
  readonly actualUnknown: boolean;
  /** The last of `actualBytes`, also where the driver stopped since. */
  readonly heldBytes: number;
  /** The reason why nothing is discarded; null: pages are discarded. */
  readonly inhibited: string | null;
  /** Whether pages on hugetlbfs are discarded that the guest uses again without telling first. */
  readonly discardsUntold: boolean;
  readonly stats: Balloon['stats'] | CacheBalloon['stats'];
  /** What was discarded and is there again; null: pages of this device may be there at any time. */
  readonly absentPages: Balloon['absentPages'] | null;
  /** How long the discard that is under way has been, in milliseconds; 0: there is none. */
  readonly discardingMs: number;
  /** The queues that were looked at and whose purpose is not known, because fewer of them are set up than were acked. */
  readonly unknownQueues: readonly number[];
  /** Tells the driver of its target again. */
  remind(): void;
  setInhibited(reason: string | null): Promise<void>;
}

/** The part that a device plays for its VM: the field of a VM in the control API that has its figures. */
export type Part = keyof Pick<VmView, 'balloon' | 'cache'>;

/** What holds for all devices that play one part. */
interface PartRules {
  /** Its target is a limit: the guest fills and empties the device as it likes. */
  readonly sizesItself: boolean;
  /** The end of a sentence on a VM without such a device, for an operator who sets its target. */
  readonly missing: RefusalText;
}

export const PARTS: Readonly<Record<Part, PartRules>> = {
  balloon: {
    sizesItself: false,
    missing: refusal(
      'has a page cache balloon only',
      'set its --cache-limit, or give the VM a balloon too (virtio-id=5)',
    ),
  },
  cache: {
    sizesItself: true,
    missing: refusal(
      'has no page cache balloon',
      'load the driver of guest/virtio_balloon in the guest, and start QEMU with the device that balloonctl qemu-args prints',
    ),
  },
};

/** What holds for a device of any kind: one row of the table. */
interface Kind {
  readonly part: Part;
  /** The name of the device, and of its target, in messages. */
  readonly words: string;
  readonly targetWords: string;
  /** The module of the guest's driver. */
  readonly driver: 'virtio_balloon' | 'the virtio_balloon of guest/virtio_balloon';
  /** The feature without which a guest sends no statistics; null: it sends them with any. */
  readonly statsFeature: OfferableFeature | null;
  /** The protocol between the daemon and the VMM. */
  readonly over: VmView['kind'];
  /** The daemon has guest memory as files, in which it discards; false: the VMM has it for itself, and discards by itself. */
  readonly sharesMemory: boolean;
  /**
   * By how many times more than a balloon that the daemon serves it should be moved at once, and waited for: the policy's steps
   * and grace times are larger by so much.
   */
  readonly slowness: number;
  /** The end of a sentence on a VM with such a device, for an operator who stops discards; null: they can be stopped. */
  readonly uninhibitable: RefusalText | null;
}

/** The row of a device that this daemon serves. */
export interface ServedKind extends Kind {
  /** The features that devices of this kind have. */
  readonly features: readonly OfferableFeature[];
  make(parts: BalloonParts): AnyBalloon;
}

/** The row of a device that QEMU serves. */
interface AdoptedRow extends Kind {
  readonly over: AdoptedKind;
  /** The way to QEMU, and the program that answers, in messages. */
  readonly overWords: string;
  readonly peer: string;
  /** The next step of an operator who leaves the VM to another device. */
  readonly leave: NextStep;
}

const CACHE_FEATURES = Object.keys(CacheBalloonFeature) as CacheBalloonFeatureName[];
const SERVED = { over: 'vhost-user', sharesMemory: true, slowness: 0, uninhibitable: null } as const;

const ADOPTED = {
  part: 'balloon',
  words: 'balloon of QEMU',
  targetWords: 'balloon target',
  driver: 'virtio_balloon',
  statsFeature: null,
  sharesMemory: false,
  // QEMU discards each page by itself while its guest waits.
  slowness: 1,
  uninhibitable: refusal(
    "has QEMU's own balloon, whose pages QEMU discards by itself",
    'set a balloon of 0 for as long as the host must not lose pages, or give the VM a vhost-user balloon',
  ),
} as const;

export const KINDS: Readonly<Record<DeviceKind, ServedKind> & Record<AdoptedKind, AdoptedRow>> = {
  balloon: {
    ...SERVED,
    part: 'balloon',
    words: 'balloon',
    targetWords: 'balloon target',
    driver: 'virtio_balloon',
    features: [...(Object.keys(BalloonFeature) as BalloonFeatureName[]), ...CACHE_FEATURES],
    statsFeature: 'VIRTIO_BALLOON_F_STATS_VQ',
    make: (parts) => new Balloon(parts),
  },
  'cache-balloon': {
    ...SERVED,
    part: 'cache',
    words: 'page cache balloon',
    targetWords: 'page cache balloon limit',
    driver: 'the virtio_balloon of guest/virtio_balloon',
    features: CACHE_FEATURES,
    statsFeature: null,
    make: (parts) => new CacheBalloon(parts),
  },
  qmp: {
    ...ADOPTED,
    over: 'qmp',
    overWords: 'QMP',
    peer: 'QEMU',
    leave: 'run balloonctl adopt --release for its socket',
  },
  libvirt: {
    ...ADOPTED,
    over: 'libvirt',
    overWords: 'libvirt',
    peer: 'libvirt',
    leave: 'run balloonctl adopt --release for the domain',
  },
};

export const OFFERABLE: readonly OfferableFeature[] = [
  ...new Set(DEVICE_KINDS.flatMap((kind) => KINDS[kind].features)),
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

/** Devices in the order of the table, the last one of each kind. */
export function inOrder<D extends { readonly kind: AnyKind }>(devices: readonly D[]): D[] {
  return ALL_KINDS.flatMap((kind) => devices.filter((device) => device.kind === kind).slice(-1));
}
