import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { Type, type Static } from 'typebox';
import { Value } from 'typebox/value';
import { BalloonFeature, type BalloonFeatureName } from '../../protocol/virtio/balloon.js';
import { CacheBalloonFeature, type CacheBalloonFeatureName } from '../../protocol/virtio/cache-balloon.js';
import { featureMask, VirtioFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { LOG_FORMATS, LOG_LEVELS } from '../ops/log.js';
import { globMatches } from '../policy/glob.js';
import { findPolicyMistake, POLICY_TABLE, VM_POLICY } from '../policy/settings.js';
import { lineOf } from './toml-line.js';

/** A file or flag that cannot be honoured; the message is one line that says what to do. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/**
 * Features that may be named, and those offered where nothing is said. A packed ring has no used index in guest
 * memory from which a daemon that was killed could resume, so it is offered only where asked for.
 */
export type OfferableFeature = BalloonFeatureName | CacheBalloonFeatureName | 'VIRTIO_F_RING_PACKED';
const BALLOON_FEATURES = Object.keys(BalloonFeature) as BalloonFeatureName[];
const CACHE_FEATURES = Object.keys(CacheBalloonFeature) as CacheBalloonFeatureName[];
const OFFERABLE: readonly OfferableFeature[] = [
  ...BALLOON_FEATURES,
  ...CACHE_FEATURES,
  'VIRTIO_F_RING_PACKED',
];

/** What connections to a socket are served: vhost-user does not say what the VMM shows its guest. */
const DEVICE_KINDS = ['balloon', 'cache-balloon'] as const;
export type DeviceKind = (typeof DEVICE_KINDS)[number];

export function isOfferable(name: string): name is OfferableFeature {
  return (OFFERABLE as readonly string[]).includes(name);
}

const DeviceSettings = {
  features: Type.Optional(Type.Array(Type.Union(OFFERABLE.map((name) => Type.Literal(name))))),
  'stats-interval': Type.Optional(Type.Number({ minimum: 0, maximum: 86400 })),
  'discard-delay': Type.Optional(Type.Number({ minimum: 0, maximum: 0.05 })),
  'shared-cgroup': Type.Optional(Type.Boolean()),
};

const ConfigFile = Type.Object(
  {
    control: Type.Optional(Type.String({ minLength: 1 })),
    metrics: Type.Optional(Type.String({ minLength: 1 })),
    'log-level': Type.Optional(Type.Union(LOG_LEVELS.map((level) => Type.Literal(level)))),
    'log-format': Type.Optional(Type.Union(LOG_FORMATS.map((format) => Type.Literal(format)))),
    socket: Type.Optional(
      Type.Array(
        Type.Object(
          {
            path: Type.String({ minLength: 1 }),
            device: Type.Optional(Type.Union(DEVICE_KINDS.map((kind) => Type.Literal(kind)))),
            name: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9._:@+-]{1,64}$' })),
            ...DeviceSettings,
          },
          { additionalProperties: false },
        ),
      ),
    ),
    vm: Type.Optional(
      Type.Array(
        Type.Object(
          { match: Type.String({ minLength: 1 }), ...DeviceSettings, ...VM_POLICY },
          { additionalProperties: false },
        ),
      ),
    ),
    policy: Type.Optional(POLICY_TABLE),
  },
  { additionalProperties: false },
);
export type ConfigFile = Static<typeof ConfigFile>;

/**
 * What a device offers, how often it asks its guest for statistics (seconds; 0: never), and how long a discard behind
 * the ack waits for more to be given up (seconds), and whether a cgroup that holds others as well may be limited.
 */
export interface DeviceOptions {
  kind: DeviceKind;
  features: readonly OfferableFeature[];
  statsIntervalSeconds: number;
  discardDelaySeconds: number;
  sharedCgroup: boolean;
}

export interface SocketSettings {
  path: string;
  device?: DeviceKind | undefined;
  name?: string | undefined;
  features?: readonly OfferableFeature[] | undefined;
  'stats-interval'?: number | undefined;
  'discard-delay'?: number | undefined;
  'shared-cgroup'?: boolean | undefined;
}

const DEFAULTS = {
  statsIntervalSeconds: 10,
  discardDelaySeconds: 0.01,
  sharedCgroup: false,
};

/** Throws SettingsError naming the file, and the line or the key that is wrong. */
export function readConfigFile(path: string): ConfigFile {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SettingsError(`cannot read the configuration: ${reason}`);
  }
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [reason] = error.message.split('\n');
    throw new SettingsError(`${path}:${error.line}:${error.column}: ${reason ?? 'not TOML'}`);
  }
  const wrong = (where: string, what: string): SettingsError => {
    const line = lineOf(text, where);
    return new SettingsError(`${path}${line === null ? '' : `:${line}`}: ${where || 'the file'} ${what}`);
  };
  if (!Value.Check(ConfigFile, document)) {
    const [first] = Value.Errors(ConfigFile, document);
    throw wrong(first?.instancePath.replaceAll('/', '.').slice(1) ?? '', first?.message ?? 'is wrong');
  }
  const mistake = findPolicyMistake(document);
  if (mistake !== null) throw wrong(mistake.where, mistake.what);
  return document;
}

/** What applies to a VM: the last matching `[[vm]]`, then its socket, then the defaults. */
export function deviceOptions(config: ConfigFile, socket: SocketSettings | null, vm: string): DeviceOptions {
  const matching = (config.vm ?? []).filter(({ match }) => globMatches(match, vm)).at(-1);
  const kind = socket?.device ?? 'balloon';
  // A VM with both devices may be matched by one table: each of them offers what is its own.
  const others: readonly OfferableFeature[] = kind === 'balloon' ? CACHE_FEATURES : BALLOON_FEATURES;
  const own = kind === 'balloon' ? BALLOON_FEATURES : CACHE_FEATURES;
  return {
    kind,
    features: (matching?.features ?? socket?.features ?? own).filter((name) => !others.includes(name)),
    statsIntervalSeconds:
      matching?.['stats-interval'] ?? socket?.['stats-interval'] ?? DEFAULTS.statsIntervalSeconds,
    discardDelaySeconds:
      matching?.['discard-delay'] ?? socket?.['discard-delay'] ?? DEFAULTS.discardDelaySeconds,
    sharedCgroup: matching?.['shared-cgroup'] ?? socket?.['shared-cgroup'] ?? DEFAULTS.sharedCgroup,
  };
}

/** The bits that are offered for these features, with what every split ring can be served with. */
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

/** `HOST:PORT`; an IPv6 address in brackets. Throws SettingsError. */
export function parseAddress(text: string): { host: string; port: number } {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || Number(digits) > 65_535) {
    throw new SettingsError(
      `metrics cannot be served on ${JSON.stringify(text)}: give HOST:PORT, such as 127.0.0.1:9797 or [::1]:9797`,
    );
  }
  return { host, port: Number(digits) };
}
