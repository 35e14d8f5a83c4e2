/** What the options of a command line stand for; each function throws UsageError where a value makes no sense. */
import { LIMIT_NAMES } from '../../../protocol/control/limits.js';
import type { LimitRequest } from '../../../protocol/control/schema.js';
import { formatSize, lackedUnit, parseSize } from '../../../protocol/control/size.js';
import type { OptionValues } from './command-line.js';
import { UsageError } from './exit.js';

/** A size of a guest as people give it: bytes, bytes more or less than the target that holds, or a part of its memory. */
type Wish = { readonly bytes: number } | { readonly moreBytes: number } | { readonly percent: number };

export interface TargetWish {
  readonly of: 'memoryBytes' | 'balloonBytes' | 'cacheLimitBytes';
  readonly wish: Wish;
  readonly force: boolean;
}

/** The target that the options name. */
export function targetOf(values: OptionValues): TargetWish {
  const force = values['force'] === true;
  const given = (['memory', 'balloon', 'cache-limit'] as const).filter(
    (name) => text(values, name) !== undefined,
  );
  if (given.length > 1) {
    throw given.includes('cache-limit')
      ? new UsageError(
          '--cache-limit is the limit of the page cache balloon, and not a target: set it by a command of its own',
        )
      : new UsageError('--memory cannot be used with --balloon: one is the RAM less the other');
  }
  const [name] = given;
  if (name === undefined) {
    throw new UsageError(
      'set needs --memory SIZE (memory that the guest keeps), --balloon SIZE (memory that the guest gives up) or --cache-limit SIZE',
    );
  }
  if (name === 'cache-limit' && force) throw new UsageError('--force cannot be used with --cache-limit');
  const of = ({ memory: 'memoryBytes', balloon: 'balloonBytes', 'cache-limit': 'cacheLimitBytes' } as const)[
    name
  ];
  return { of, wish: wishOf(values, name), force };
}

function wishOf(values: OptionValues, name: 'memory' | 'balloon' | 'cache-limit'): Wish {
  const given = text(values, name)?.trim() ?? '';
  const [, sign, rest = ''] = /^([+-])(.*)$/.exec(given) ?? [];
  if (sign !== undefined) {
    const bytes = /^ *[\d.]+ *[KMGT]?(i?B)? *$/i.test(rest) ? notBytes({ [name]: rest }, name) : 0;
    if (bytes === 0) {
      throw new UsageError(
        `--${name}: ${given} is no change of a size: write +64M for more, or =-64M for less`,
      );
    }
    return { moreBytes: sign === '+' ? bytes : -bytes };
  }
  const [, percent] = /^(\d+(?:\.\d+)?) ?%$/.exec(given) ?? [];
  if (percent === undefined) return { bytes: notBytes(values, name) };
  if (Number(percent) > 100)
    throw new UsageError(`--${name}: write a part of the guest's memory of up to 100%`);
  return { percent: Number(percent) };
}

/** The limits that the options name. */
export function limitsOf(values: OptionValues): LimitRequest {
  const given = LIMIT_NAMES.filter((name) => text(values, name) !== undefined);
  if (given.length === 0) {
    throw new UsageError(`limit needs ${LIMIT_NAMES.map((name) => `--${name}`).join(' or ')}`);
  }
  const words = given.map((name) => {
    const word = text(values, name);
    return [name, word === 'max' || word === 'follow' || word === 'restore' ? word : size(values, name)];
  });
  return Object.fromEntries(words) as LimitRequest;
}

/** Of these, which the table names, or else as if it had not been given. */
export function oneOf<Word extends string>(
  words: readonly Word[],
  value: string | undefined,
): Word | undefined {
  return words.find((word) => word === value);
}

export function text(values: OptionValues, name: string): string | undefined {
  const value = values[name];
  return typeof value === 'string' ? value : undefined;
}

export function size(values: OptionValues, name: string): number | undefined {
  const value = text(values, name);
  try {
    return value === undefined ? undefined : parseSize(value);
  } catch (error) {
    throw new UsageError(`--${name}: ${(error as Error).message}`);
  }
}

/** A size for a guest. Refuses a number whose unit was forgotten, with which the guest would have no memory left. */
function notBytes(values: OptionValues, name: string): number {
  const bytes = size(values, name) ?? 0;
  const given = text(values, name) ?? '';
  const meant = lackedUnit(given);
  if (meant === null || (bytes === 0 && name !== 'memory')) return bytes;
  throw new UsageError(
    bytes === 0
      ? `--${name}: no guest lives without memory: write a size, such as 256M`
      : `--${name}: ${given} means ${formatSize(bytes)}: write a unit, such as ${meant}`,
  );
}

export function whole(values: OptionValues, name: string): number | undefined {
  const value = text(values, name);
  if (value === undefined) return undefined;
  if (!/^[1-9]\d{0,6}$/.test(value)) throw new UsageError(`--${name}: write a whole number above 0`);
  return Number(value);
}

export function seconds(values: OptionValues, name: string): number | undefined {
  const value = text(values, name);
  if (value === undefined) return undefined;
  if (!/^\d+(\.\d+)?$/.test(value)) throw new UsageError(`--${name}: write seconds, such as 60 or 0.5`);
  return Number(value);
}
