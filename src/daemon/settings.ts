import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { parse, TomlError } from 'smol-toml';
import { Type, type Static } from 'typebox';
import { Value } from 'typebox/value';
import { BalloonFeature, type BalloonFeatureName } from '../../protocol/virtio/balloon.js';
import { featureMask, VirtioFeature, type FeatureBits } from '../../protocol/virtio/features.js';
import { LOG_FORMATS, LOG_LEVELS } from '../ops/log.js';
import { placeInToml } from './toml-place.js';

/** A file or flag that cannot be honoured; the message is one line that says what to do. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/**
 * Features that may be named, and those offered where nothing is said. A packed ring has no used index in guest
 * memory from which a daemon that was killed could resume, so it is offered only where asked for.
 */
export type OfferableFeature = BalloonFeatureName | 'VIRTIO_F_RING_PACKED';
const BALLOON_FEATURES = Object.keys(BalloonFeature) as BalloonFeatureName[];
const OFFERABLE: readonly OfferableFeature[] = [...BALLOON_FEATURES, 'VIRTIO_F_RING_PACKED'];

export function isOfferable(name: string): name is OfferableFeature {
  return (OFFERABLE as readonly string[]).includes(name);
}

const DeviceSettings = {
  features: Type.Optional(Type.Array(Type.Union(OFFERABLE.map((name) => Type.Literal(name))))),
  'stats-interval': Type.Optional(Type.Number({ minimum: 0, maximum: 86400 })),
  'discard-delay': Type.Optional(Type.Number({ minimum: 0, maximum: 0.05 })),
};

const ConfigFile = Type.Object(
  {
    control: Type.Optional(Type.String({ minLength: 1 })),
    'log-level': Type.Optional(Type.Union(LOG_LEVELS.map((level) => Type.Literal(level)))),
    'log-format': Type.Optional(Type.Union(LOG_FORMATS.map((format) => Type.Literal(format)))),
    socket: Type.Optional(
      Type.Array(
        Type.Object(
          {
            path: Type.String({ minLength: 1 }),
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
          { match: Type.String({ minLength: 1 }), ...DeviceSettings },
          { additionalProperties: false },
        ),
      ),
    ),
  },
  { additionalProperties: false },
);
export type ConfigFile = Static<typeof ConfigFile>;

/**
 * What a device offers, how often it asks its guest for statistics (seconds; 0: never), and how long a discard behind
 * the ack waits for more to be given up (seconds).
 */
export interface DeviceOptions {
  features: readonly OfferableFeature[];
  statsIntervalSeconds: number;
  discardDelaySeconds: number;
}

export interface SocketSettings {
  path: string;
  name?: string | undefined;
  features?: readonly OfferableFeature[] | undefined;
  'stats-interval'?: number | undefined;
  'discard-delay'?: number | undefined;
}

const DEFAULTS: DeviceOptions = {
  features: BALLOON_FEATURES,
  statsIntervalSeconds: 10,
  discardDelaySeconds: 0.01,
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
  if (!Value.Check(ConfigFile, document)) {
    const { where, wrong } = firstMistake(document);
    const { line, column } = placeInToml(text, where);
    const key = where.length === 0 ? '' : `${where.join('.')} `;
    throw new SettingsError(`${path}:${line}:${column}: ${key}${wrong}`);
  }
  return document;
}

/** What is wrong first in a document that is not a ConfigFile, and its path. */
function firstMistake(document: unknown): { where: string[]; wrong: string } {
  const errors = Value.Errors(ConfigFile, document);
  const path = errors[0]?.instancePath ?? '';
  const where = path.split('/').slice(1);
  const here = errors.filter(({ instancePath }) => instancePath === path);
  const choices = here.flatMap((error) =>
    error.keyword === 'const' ? [String(error.params.allowedValue)] : [],
  );
  if (choices.length > 0) return { where, wrong: `must be one of ${choices.join(', ')}` };
  if (here.some(({ keyword }) => keyword === 'boolean')) {
    return { where, wrong: 'is unknown: see docs/configuration.md for the keys there are' };
  }
  return { where, wrong: errors[0]?.message ?? 'is wrong' };
}

/** What applies to a VM: the last matching `[[vm]]`, then its socket, then the defaults. */
export function deviceOptions(config: ConfigFile, socket: SocketSettings | null, vm: string): DeviceOptions {
  const matching = (config.vm ?? []).filter(({ match }) => globMatches(match, vm)).at(-1);
  return {
    features: matching?.features ?? socket?.features ?? DEFAULTS.features,
    statsIntervalSeconds:
      matching?.['stats-interval'] ?? socket?.['stats-interval'] ?? DEFAULTS.statsIntervalSeconds,
    discardDelaySeconds:
      matching?.['discard-delay'] ?? socket?.['discard-delay'] ?? DEFAULTS.discardDelaySeconds,
  };
}

/** The bits that are offered for these features, with what every split ring can be served with. */
export function offeredBits(features: readonly OfferableFeature[]): FeatureBits {
  const bits = { ...BalloonFeature, VIRTIO_F_RING_PACKED: VirtioFeature.VIRTIO_F_RING_PACKED };
  return featureMask(
    ...features.map((name) => bits[name]),
    VirtioFeature.VIRTIO_F_INDIRECT_DESC,
    VirtioFeature.VIRTIO_F_EVENT_IDX,
    VirtioFeature.VIRTIO_F_VERSION_1,
  );
}

/** `*` stands for any characters, `?` for one. */
export function globMatches(pattern: string, name: string): boolean {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 'u').test(name);
}

/** When a setting that was changed in the file takes effect, if it is not to interrupt anybody. */
export type Effect = 'now' | 'next-connection' | 'restart';

const EFFECTS: Readonly<Record<keyof ConfigFile, Effect>> = {
  control: 'restart',
  'log-level': 'now',
  'log-format': 'restart',
  socket: 'now',
  vm: 'next-connection',
};

export interface ConfigChange {
  /** The section, or a socket by its path. */
  key: string;
  effect: Effect;
}

/** What differs between two files; sockets that are there in both keep listening, and their settings wait for VMs. */
export function configChanges(before: ConfigFile, after: ConfigFile): ConfigChange[] {
  const sections = Object.keys(EFFECTS) as (keyof ConfigFile)[];
  return sections.flatMap((key): ConfigChange[] => {
    if (isDeepStrictEqual(before[key], after[key])) return [];
    return key === 'socket' ? socketChanges(before, after) : [{ key, effect: EFFECTS[key] }];
  });
}

function socketChanges(before: ConfigFile, after: ConfigFile): ConfigChange[] {
  const [was, is] = [before, after].map(
    ({ socket = [] }) => new Map(socket.map((one) => [one.path, one] as const)),
  );
  const paths = [...new Set([...(was?.keys() ?? []), ...(is?.keys() ?? [])])];
  return paths.flatMap((path): ConfigChange[] => {
    const [old, now] = [was?.get(path), is?.get(path)];
    if (isDeepStrictEqual(old, now)) return [];
    const stays = old !== undefined && now !== undefined;
    return [{ key: `socket ${path}`, effect: stays ? 'next-connection' : 'now' }];
  });
}
