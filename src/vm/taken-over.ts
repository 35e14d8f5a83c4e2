import type { LimitWord } from '../../protocol/control/schema.js';
import type { WallMs } from '../os/clock.js';
import { byName, LIMIT_NAMES, LIMITS } from '../../protocol/control/limits.js';
import { DEVICE_KINDS, KINDS, PARTS } from './kinds.js';
import { inHand, limitWords, type Orders } from './orders.js';
import type { VmRecord } from './record.js';

/** Nobody noted when the order was given. */
const UNKNOWN = 0 as WallMs;

/**
 * The orders that a record of a device speaks of, for a book that does not have them: the record is of a build without
 * a book, or the book was lost. `targetBytes`: of the device. `known`: orders of the book, which may be older and lend their
 * times. `wholePause`: the book says that the policy is paused for all VMs, which is why such a build left this VM alone, too.
 */
export function ordersOfRecord(
  { inhibited, manual, wantedMemoryBytes, forcedFrom, limits, device }: VmRecord,
  targetBytes: number,
  known: Orders,
  wholePause: boolean,
): Orders {
  const orders: Orders = {};
  const { sizesItself } = PARTS[KINDS[device ?? DEVICE_KINDS[0]].part];
  if (inhibited !== null) {
    const same = known.inhibit?.reason === inhibited ? known.inhibit.since : UNKNOWN;
    orders.inhibit = { reason: inhibited, since: same };
  }
  if (wantedMemoryBytes !== null) {
    orders.target = { of: 'guest', bytes: wantedMemoryBytes, since: UNKNOWN };
  } else if (manual === true) {
    if (!sizesItself && known.target?.of === 'balloon' && known.target.bytes === targetBytes) {
      orders.target = known.target;
    } else if (sizesItself && known.cacheLimit?.bytes === targetBytes) {
      orders.cacheLimit = known.cacheLimit;
    } else if (!wholePause || inHand(known)) orders.paused = known.paused ?? { since: UNKNOWN };
  }
  const forced = forcedFrom ?? null;
  const words: NonNullable<Orders['limits']> = {};
  for (const name of LIMIT_NAMES) {
    const knob = limits?.[LIMITS[name].field];
    const word =
      forced !== null ? (forced[name] ?? null) : knob === undefined ? null : (knob.wanted ?? 'max');
    if (word !== null) words[name] = { word, since: known.limits?.[name]?.since ?? UNKNOWN };
  }
  if (Object.keys(words).length > 0) orders.limits = words;
  return orders;
}

/** The orders as builds without a book read them in the record of a device. `forced`: the policy holds the VM to less. */
export function ordersInRecord(
  orders: Orders,
  { forced, memoryKnown }: { forced: boolean; memoryKnown: boolean },
): Pick<VmRecord, 'forcedFrom' | 'wantedMemoryBytes'> {
  const words = limitWords(orders) ?? {};
  const { target } = orders;
  return {
    forcedFrom: forced ? byName((name) => notRestored(words[name] ?? null)) : null,
    wantedMemoryBytes: target?.of === 'guest' && !memoryKnown ? target.bytes : null,
  };
}

function notRestored(word: LimitWord | null): Exclude<LimitWord, 'restore'> | null {
  return word === 'restore' ? null : word;
}
