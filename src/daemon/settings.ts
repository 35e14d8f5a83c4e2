import { isDeepStrictEqual } from 'node:util';
import { Type, type Static } from '../../protocol/json-schema.js';
import { RefusingError } from '../../protocol/control/refusal.js';
import { LOG_LEVELS } from '../../protocol/control/log-levels.js';
import { LOG_FORMATS } from '../ops/log.js';
import { globMatches } from '../policy/glob.js';
import { AMOUNT, parseAmount, POLICY_TABLE, VM_POLICY, type PolicyFile } from '../policy/settings.js';
import {
  DEVICE_KINDS,
  KINDS,
  OFFERABLE,
  type DeviceKind,
  type DeviceOptions,
  type OfferableFeature,
} from '../vm/kinds.js';
import type { Wishes } from '../vm/orders.js';

/** A file or flag that cannot be honoured; the message is one line that says what to do. */
export class SettingsError extends RefusingError {
  override readonly name = 'SettingsError';
}

const NO_NUL = '^[^\\u0000]*$';

/** Sockets have at most 107 bytes, which is as many letters or fewer. */
const SOCKET_PATH = Type.String({
  minLength: 1,
  maxLength: 107,
  pattern: NO_NUL,
  title: 'a path of at most 107 bytes, without NUL',
});
const DeviceSettings = {
  features: Type.Optional(Type.Array(Type.Union(OFFERABLE.map((name) => Type.Literal(name))))),
  'stats-interval': Type.Optional(
    Type.Union([Type.Literal(0), Type.Number({ minimum: 0.1, maximum: 86400 })]),
  ),
  'discard-delay': Type.Optional(Type.Number({ minimum: 0, maximum: 0.05 })),
  'shared-cgroup': Type.Optional(Type.Boolean()),
  'discard-untold-huge-pages': Type.Optional(Type.Boolean()),
};

/** What an operator may order of a VM for good. */
const VmOrders = {
  target: Type.Optional(AMOUNT),
  policy: Type.Optional(Type.Union([Type.Literal('auto'), Type.Literal('manual')])),
  inhibit: Type.Optional(
    Type.String({
      pattern: '^[^\\u0000-\\u001f\\u007f]{1,200}$',
      title: 'a reason of 1 to 200 letters, without control characters',
    }),
  ),
};

export const ConfigFile = Type.Object(
  {
    control: Type.Optional(SOCKET_PATH),
    metrics: Type.Optional(Type.String({ minLength: 1, pattern: NO_NUL })),
    'log-level': Type.Optional(Type.Union(LOG_LEVELS.map((level) => Type.Literal(level)))),
    'log-format': Type.Optional(Type.Union(LOG_FORMATS.map((format) => Type.Literal(format)))),
    socket: Type.Optional(
      Type.Array(
        Type.Object(
          {
            path: SOCKET_PATH,
            device: Type.Optional(Type.Union(DEVICE_KINDS.map((kind) => Type.Literal(kind)))),
            name: Type.Optional(
              Type.String({
                pattern: '^[A-Za-z0-9._:@+-]{1,64}$',
                title: 'a string of 1 to 64 letters, digits and . _ : @ + -',
              }),
            ),
            ...DeviceSettings,
          },
          { additionalProperties: false },
        ),
      ),
    ),
    qmp: Type.Optional(Type.Array(Type.Object({ path: SOCKET_PATH }, { additionalProperties: false }))),
    libvirt: Type.Optional(
      Type.Object(
        {
          domains: Type.Optional(Type.Array(Type.String({ minLength: 1, pattern: NO_NUL }))),
          bus: Type.Optional(SOCKET_PATH),
        },
        { additionalProperties: false },
      ),
    ),
    vm: Type.Optional(
      Type.Array(
        Type.Object(
          {
            match: Type.String({ minLength: 1, pattern: NO_NUL }),
            ...DeviceSettings,
            ...VM_POLICY,
            ...VmOrders,
          },
          { additionalProperties: false },
        ),
      ),
    ),
    policy: Type.Optional(POLICY_TABLE),
  },
  { additionalProperties: false },
);
export type ConfigFile = Static<typeof ConfigFile>;

export interface SocketSettings {
  path: string;
  device?: DeviceKind | undefined;
  name?: string | undefined;
  features?: readonly OfferableFeature[] | undefined;
  'stats-interval'?: number | undefined;
  'discard-delay'?: number | undefined;
  'shared-cgroup'?: boolean | undefined;
  'discard-untold-huge-pages'?: boolean | undefined;
}

const DEFAULTS = {
  statsIntervalSeconds: 10,
  discardDelaySeconds: 0.01,
  sharedCgroup: false,
  discardsUntold: false,
};

/** What applies to a VM: the last matching `[[vm]]`, then its socket, then the defaults. */
export function deviceOptions(config: ConfigFile, socket: SocketSettings | null, vm: string): DeviceOptions {
  const matching = (config.vm ?? []).filter(({ match }) => globMatches(match, vm)).at(-1);
  const kind = socket?.device ?? 'balloon';
  // A VM with both devices may be matched by one table: each of them offers what is its own.
  const own = KINDS[kind].features;
  return {
    kind,
    features: (matching?.features ?? socket?.features ?? own).filter(
      (name) => own.includes(name) || name === 'VIRTIO_F_RING_PACKED',
    ),
    statsIntervalSeconds:
      matching?.['stats-interval'] ?? socket?.['stats-interval'] ?? DEFAULTS.statsIntervalSeconds,
    discardDelaySeconds:
      matching?.['discard-delay'] ?? socket?.['discard-delay'] ?? DEFAULTS.discardDelaySeconds,
    sharedCgroup: matching?.['shared-cgroup'] ?? socket?.['shared-cgroup'] ?? DEFAULTS.sharedCgroup,
    discardsUntold:
      matching?.['discard-untold-huge-pages'] ??
      socket?.['discard-untold-huge-pages'] ??
      DEFAULTS.discardsUntold,
  };
}

/** The patterns of the QMP sockets whose VMs are adopted. */
export function qmpPatterns({ qmp = [] }: ConfigFile): readonly string[] {
  return qmp.map(({ path }) => path);
}

/** The domains of libvirt that are adopted; null: none. */
export function libvirtSettings({ libvirt }: ConfigFile): { bus: string; domains: readonly string[] } | null {
  if (libvirt === undefined) return null;
  const { bus = '/run/dbus/system_bus_socket', domains = ['*'] } = libvirt;
  return { bus, domains };
}

/** What the last matching `[[vm]]` orders of a VM for good. */
export function vmWishes(config: ConfigFile, vm: string): Wishes {
  const matching = (config.vm ?? []).filter(({ match }) => globMatches(match, vm)).at(-1);
  const target = matching?.target === undefined ? null : parseAmount(matching.target);
  return {
    inhibit: matching?.inhibit ?? null,
    target,
    manual: target !== null || matching?.policy === 'manual',
  };
}

export const ADDRESS_FORM = 'give HOST:PORT, such as 127.0.0.1:9797 or [::1]:9797';

/** Of `HOST:PORT`, an IPv6 address in brackets; null where the text is none. */
export function readAddress(text: string): { host: string; port: number } | null {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  return host === undefined || Number(digits) > 65_535 ? null : { host, port: Number(digits) };
}

/** When a setting that was changed in the file takes effect, if it is not to interrupt anybody. */
type Effect = 'now' | 'next-connection' | 'restart';

type PolicyTable = NonNullable<ConfigFile['policy']>;

/** What the policy is started with, and keeps until it is started again; and what it can be given at any time. */
function policyParts({ policy = {} }: ConfigFile): { atStart: PolicyTable; later: PolicyTable } {
  const { mode, interval, record, 'record-max': recordMax, ...later } = policy;
  const atStart = {
    ...(mode !== undefined && { mode }),
    ...(interval !== undefined && { interval }),
    ...(record !== undefined && { record }),
    ...(recordMax !== undefined && { 'record-max': recordMax }),
  };
  return { atStart, later };
}

/** The policy of `next`, as far as a daemon that was started with `started` can have it. */
export function policyAfterReload(started: ConfigFile, next: ConfigFile): PolicyFile {
  return { vm: next.vm, policy: { ...policyParts(next).later, ...policyParts(started).atStart } };
}

/** Keys of [[vm]] that take effect at once. */
const VM_NOW = ['stats-interval', 'min', 'max', 'weight', 'size', 'target', 'policy', 'inhibit'] as const;

/** Parts of the file that take effect together. Sockets take effect one by one. */
const PARTS: readonly [key: string, effect: Effect, of: (config: ConfigFile) => unknown][] = [
  ['control', 'restart', ({ control }) => control],
  ['metrics', 'restart', ({ metrics }) => metrics],
  ['log-level', 'now', (config) => config['log-level']],
  ['log-format', 'restart', (config) => config['log-format']],
  [
    'vm',
    'next-connection',
    ({ vm }) => vm?.map((one) => ({ ...one, ...Object.fromEntries(VM_NOW.map((key) => [key, null])) })),
  ],
  [
    'vm stats-interval',
    'now',
    ({ vm = [] }) => {
      const all = vm.map((one) => ({ match: one.match, every: one['stats-interval'] }));
      return all.some(({ every }) => every !== undefined) ? all : [];
    },
  ],
  [
    'vm min, max, weight and size',
    'now',
    ({ vm }) => vm?.map(({ match, min, max, weight, size }) => ({ match, min, max, weight, size })),
  ],
  [
    'vm target, policy and inhibit',
    'now',
    ({ vm = [] }) => {
      const all = vm.map(({ match, target, policy, inhibit }) => ({ match, target, policy, inhibit }));
      return all.filter((one) => Object.values(one).filter((value) => value !== undefined).length > 1);
    },
  ],
  ['qmp', 'now', ({ qmp }) => qmp],
  ['libvirt', 'now', ({ libvirt }) => libvirt],
  ['policy', 'now', (config) => policyParts(config).later],
  ['policy mode, interval, record and record-max', 'restart', (config) => policyParts(config).atStart],
];

interface ConfigChange {
  /** The section, or a socket by its path. */
  key: string;
  effect: Effect;
}

/** What differs between two files; sockets that are there in both keep listening, and their settings wait for VMs. */
export function configChanges(before: ConfigFile, after: ConfigFile): ConfigChange[] {
  const parts = PARTS.filter(([, , of]) => !isDeepStrictEqual(of(before), of(after)));
  return [...parts.map(([key, effect]) => ({ key, effect })), ...socketChanges(before, after)];
}

function socketChanges(before: ConfigFile, after: ConfigFile): ConfigChange[] {
  const [was, is] = [before, after].map(
    ({ socket = [] }) => new Map(socket.map((one) => [one.path, one] as const)),
  );
  const paths = [...new Set([...(was?.keys() ?? []), ...(is?.keys() ?? [])])];
  return paths.flatMap((path): ConfigChange[] => {
    const [old, now] = [was?.get(path), is?.get(path)];
    if (old === undefined || now === undefined) return [{ key: `socket ${path}`, effect: 'now' }];
    const [before, after] = [old, now].map((one) => ({ ...one, 'stats-interval': null }));
    const rest: ConfigChange[] = isDeepStrictEqual(before, after)
      ? []
      : [{ key: `socket ${path}`, effect: 'next-connection' }];
    if (old['stats-interval'] === now['stats-interval']) return rest;
    return [...rest, { key: `socket ${path} stats-interval`, effect: 'now' }];
  });
}
