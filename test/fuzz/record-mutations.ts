import type { Dice } from './dice.js';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const WORDS = [
  '',
  '-',
  '0x',
  '0x0',
  '0xffffffffffffffff',
  '0xg',
  'running',
  'connected',
  'stopped',
  'left\n',
  'f1',
];

/** The same with a few things changed, each somewhere in it. */
export function mutatedJson(dice: Dice, json: Json, names: readonly string[]): Json {
  const copy = JSON.parse(JSON.stringify(json)) as Json;
  for (let n = 1 + dice.below(3); n > 0; n--) mutateIn(dice, copy, names);
  return copy;
}

function mutateIn(dice: Dice, json: Json, names: readonly string[]): void {
  let at = json;
  for (;;) {
    if (at === null || typeof at !== 'object') return;
    const entries: [string, Json][] = Object.entries(at);
    const [key, value] = entries[dice.below(entries.length)] ?? [undefined, null];
    if (key === undefined) return;
    if (value !== null && typeof value === 'object' && dice.chance(85)) {
      at = value;
      continue;
    }
    const change = mutated(dice, value, names);
    if (Array.isArray(at)) {
      if (dice.chance(15)) at.splice(Number(key), 1);
      else if (dice.chance(15)) at.push(...Array.from({ length: dice.pick([1, 2, 600]) }, () => value));
      else at[Number(key)] = change;
    } else if (dice.chance(10)) {
      Reflect.deleteProperty(at, key);
    } else {
      at[key] = change;
    }
    return;
  }
}

function mutated(dice: Dice, value: Json, names: readonly string[]): Json {
  const anything = (): Json => dice.pick<Json>([null, true, -1, 0, 1.5, 1e300, '', [], {}]);
  if (dice.chance(10)) return anything();
  if (typeof value === 'number') {
    return dice.pick([
      value + 1,
      value - 1,
      value * 2,
      dice.u32(),
      dice.word(),
      2 ** dice.below(64),
      4096 * dice.below(400),
    ]);
  }
  if (typeof value === 'boolean') return !value;
  if (typeof value === 'string' || value === null) {
    if (typeof value === 'string' && /^0x[0-9a-f]+$/.test(value) && dice.chance(90)) {
      const old = BigInt(value);
      const page = 4096n * BigInt(dice.below(9) - 4);
      return `0x${BigInt.asUintN(64, dice.pick([old + page, old + 1n, dice.u64(), dice.u64(old)])).toString(16)}`;
    }
    if (dice.chance(70)) return names[dice.below(names.length)] ?? '-';
    return dice.chance(90) ? (WORDS[dice.below(WORDS.length)] ?? '') : 'x'.repeat(dice.below(100_000));
  }
  return anything();
}
