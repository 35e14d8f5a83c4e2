/**
 * What an operator ordered of a VM, by the VM's name: it holds until it is taken back, whichever devices and daemons come
 * and go. The configuration can say the same for good; the order of an operator goes before it.
 */
import { Type, type Static } from '../../protocol/json-schema.js';
import type { LimitRequest, LimitWord, TargetRequest, VmOrder } from '../../protocol/control/schema.js';
import { byName, LIMIT_NAMES, LIMITS, type LimitName } from '../../protocol/control/limits.js';
import { formatSize } from '../../protocol/control/size.js';
import { vmCommand } from '../../protocol/control/vm-command.js';
import type { WallMs } from '../os/clock.js';
import { amountOf, type Amount } from '../policy/settings.js';
import type { Part } from './kinds.js';

/** Wall time of the order; 0: an earlier build did not note it. */
export const Since = Type.Unsafe<WallMs>(Type.Number({ minimum: 0, maximum: 8.64e15 }));
const Bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Word = Type.Object({
  word: Type.Union([Bytes, Type.Literal('max'), Type.Literal('follow')]),
  since: Since,
});

export const Orders = Type.Object(
  {
    inhibit: Type.Optional(Type.Object({ reason: Type.String({ maxLength: 500 }), since: Since })),
    /** Memory that the guest keeps, or gives up to its balloon. */
    target: Type.Optional(
      Type.Object({
        of: Type.Union([Type.Literal('guest'), Type.Literal('balloon')]),
        bytes: Bytes,
        since: Since,
        /** Also below the memory that any guest is known to live in. */
        forced: Type.Optional(Type.Boolean()),
      }),
    ),
    cacheLimit: Type.Optional(Type.Object({ bytes: Bytes, since: Since })),
    /** A newer build may know further limits, which are nothing to this one. */
    limits: Type.Optional(Type.Object(byName(() => Type.Optional(Word)))),
    /** The policy was paused for the VM. */
    paused: Type.Optional(Type.Object({ since: Since })),
  },
  { additionalProperties: false },
);
export type Orders = Static<typeof Orders>;

/** What the configuration says of a VM for good. */
export interface Wishes {
  readonly inhibit: string | null;
  /** Memory that the guest keeps, of its RAM. */
  readonly target: Amount | null;
  /** The policy leaves the VM alone. */
  readonly manual: boolean;
}

export const NO_WISHES: Wishes = { inhibit: null, target: null, manual: false };

/** Whether nothing is ordered. */
export function isEmpty(orders: Orders): boolean {
  return Object.keys(orders).length === 0;
}

/** Whether an operator took the VM in hand, so that the policy leaves it alone. */
export function inHand({ target, cacheLimit, paused }: Orders): boolean {
  return target !== undefined || cacheLimit !== undefined || paused !== undefined;
}

/** Whether a target for a device of that part is ordered. */
export function hasTarget({ target, cacheLimit }: Orders, part: Part): boolean {
  return (part === 'cache' ? cacheLimit : target) !== undefined;
}

/** The orders without those that keep the policy away. */
export function handedBack({ inhibit, limits }: Orders): Orders {
  return { ...(inhibit !== undefined && { inhibit }), ...(limits !== undefined && { limits }) };
}

/** The orders with a target in place of the one before. */
export function withTarget(orders: Orders, target: TargetRequest, since: WallMs): Orders {
  if ('cacheLimitBytes' in target) {
    return { ...orders, cacheLimit: { bytes: target.cacheLimitBytes, since } };
  }
  const [of, bytes] =
    'memoryBytes' in target
      ? (['guest', target.memoryBytes] as const)
      : (['balloon', target.balloonBytes] as const);
  const forced = target.force === true && { forced: true };
  return { ...orders, target: { of, bytes, since, ...forced } };
}

/** The orders with limits in place of those before; `restore` takes one back. */
export function withLimits({ limits = {}, ...others }: Orders, asked: LimitRequest, since: WallMs): Orders {
  const next = LIMIT_NAMES.flatMap((name) => {
    const word = asked[name];
    if (word === 'restore') return [];
    const order = word === undefined ? limits[name] : { word, since };
    return order === undefined ? [] : [[name, order] as const];
  });
  return withLimitOrders(others, next.length === 0 ? undefined : Object.fromEntries(next));
}

/** The orders with these for limits; undefined: with none. */
export function withLimitOrders(
  { inhibit, target, cacheLimit, paused }: Orders,
  limits: Orders['limits'],
): Orders {
  return {
    ...(inhibit !== undefined && { inhibit }),
    ...(target !== undefined && { target }),
    ...(cacheLimit !== undefined && { cacheLimit }),
    ...(limits !== undefined && { limits }),
    ...(paused !== undefined && { paused }),
  };
}

/** The limits that are ordered, as a request. */
export function limitWords({ limits = {} }: Orders): LimitRequest | null {
  const words = LIMIT_NAMES.flatMap((name): [LimitName, LimitWord][] => {
    const word = limits[name]?.word;
    return word === undefined ? [] : [[name, word]];
  });
  return words.length === 0 ? null : Object.fromEntries(words);
}

const noted = (since: WallMs): string | null => (since === 0 ? null : new Date(since).toISOString());

/** The pause of the policy for all VMs, given at `since`, in words. */
export function pauseView(since: WallMs): VmOrder {
  return {
    order: 'policy',
    says: 'the policy leaves all VMs alone',
    by: 'operator',
    since: noted(since),
    undo: 'balloonctl policy resume',
  };
}

/** The mode of the policy that an operator set at `since`, in words. */
export function modeView(mode: string, since: WallMs): VmOrder {
  return {
    order: 'policy-mode',
    says: `the policy is in mode ${mode}, whatever the configuration says`,
    by: 'operator',
    since: noted(since),
    undo: 'balloonctl policy mode configured',
  };
}

/** The release of a domain of libvirt, or of the path of a QMP socket, given at `since`, in words. */
export function releaseView(name: string, since: WallMs): VmOrder {
  const isPath = name.startsWith('/');
  return {
    order: 'released',
    says: `the daemon leaves the ${isPath ? 'VM at this QMP socket' : 'domain of libvirt'} alone`,
    by: 'operator',
    since: noted(since),
    undo: vmCommand('balloonctl adopt', isPath ? name : `libvirt:${name}`),
  };
}

/** A VM as its orders see it. */
interface OrderedVm {
  readonly name: string;
  readonly ramBytes: number;
  /** Whether the VM has a device for that part, without which an order waits. */
  readonly has: (part: Part) => boolean;
  /** Why the target of that part is not what was ordered, in words; null: it is. */
  readonly cut: (part: Part) => string | null;
  /** Its discards can be stopped. */
  readonly inhibits?: boolean;
}

/** The orders in words, for `show`. */
export function orderViews(
  { name, ramBytes, has, cut, inhibits = true }: OrderedVm,
  orders: Orders,
  wishes: Wishes,
): VmOrder[] {
  const resume = vmCommand('balloonctl policy resume', name);
  const ordered = (order: VmOrder['order'], says: string, since: WallMs, undo: string): VmOrder => ({
    order,
    says,
    by: 'operator',
    since: noted(since),
    undo,
  });
  const wished = (order: VmOrder['order'], says: string, key: string = order): VmOrder => ({
    order,
    says,
    by: 'configuration',
    since: null,
    undo: `take ${key} out of [[vm]] in the configuration, then run balloonctl reload`,
  });
  const butFor = (part: Part): string => {
    if (!has(part))
      return `, which waits until the VM has a ${part === 'cache' ? 'page cache ' : ''}balloon device`;
    const held = cut(part);
    return held === null ? '' : `, but ${held}`;
  };
  const views: VmOrder[] = [];
  const but = inhibits
    ? ''
    : ', which does not hold, since QEMU discards the pages of its own balloon by itself';
  const { inhibit, target, cacheLimit, limits = {}, paused } = orders;
  if (inhibit !== undefined) {
    views.push(
      ordered(
        'inhibit',
        `discard nothing ("${inhibit.reason}")${but}`,
        inhibit.since,
        vmCommand('balloonctl allow', name),
      ),
    );
  }
  if (wishes.inhibit !== null) views.push(wished('inhibit', `discard nothing ("${wishes.inhibit}")${but}`));
  if (target !== undefined) {
    const size = formatSize(target.bytes);
    const says = target.of === 'guest' ? `the guest keeps ${size}` : `the guest gives up ${size}`;
    views.push(ordered('target', says + butFor('balloon'), target.since, resume));
  }
  if (wishes.target !== null) {
    const size = formatSize(amountOf(wishes.target, ramBytes));
    const when = target === undefined ? butFor('balloon') : ' once the order of an operator is taken back';
    views.push(wished('target', `the guest keeps ${size}${when}`));
  }
  if (cacheLimit !== undefined) {
    const says = `the page cache balloon holds ${formatSize(cacheLimit.bytes)} at most`;
    views.push(ordered('cache-limit', says + butFor('cache'), cacheLimit.since, resume));
  }
  for (const limit of LIMIT_NAMES) {
    const order = limits[limit];
    if (order === undefined) continue;
    const word = typeof order.word === 'number' ? formatSize(order.word) : order.word;
    const undo = vmCommand('balloonctl limit', name, `--${limit} restore`);
    views.push(ordered(`limit-${limit}`, `${LIMITS[limit].file} ${word}`, order.since, undo));
  }
  if (paused !== undefined)
    views.push(ordered('policy', 'the policy leaves the VM alone', paused.since, resume));
  // A VM with a target is left alone in any case.
  const key = wishes.target === null ? 'policy' : 'target';
  if (wishes.manual) views.push(wished('policy', 'the policy leaves the VM alone', key));
  return views;
}
