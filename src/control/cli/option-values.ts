/** What the options of a command line stand for; each function throws UsageError where a value makes no sense. */
import type { LimitWord, TargetRequest } from '../../../protocol/control/schema.js';
import { formatSize, parseSize } from '../../../protocol/control/size.js';
import type { OptionValues } from './command-line.js';
import { UsageError } from './exit.js';

const PAGE_BYTES = 4096;

/** The target that the options name. */
export function targetOf(values: OptionValues): TargetRequest {
  const memoryBytes = notBytes(values, 'memory');
  const balloonBytes = notBytes(values, 'balloon');
  const cacheLimitBytes = size(values, 'cache-limit');
  if (memoryBytes !== undefined && balloonBytes !== undefined) {
    throw new UsageError('--memory cannot be used with --balloon: one is the RAM less the other');
  }
  if (cacheLimitBytes !== undefined) {
    if (memoryBytes === undefined && balloonBytes === undefined) return { cacheLimitBytes };
    throw new UsageError('--cache-limit is of another device: set it by a command of its own');
  }
  if (memoryBytes !== undefined) return { memoryBytes };
  if (balloonBytes !== undefined) return { balloonBytes };
  throw new UsageError(
    'set needs --memory SIZE (memory that the guest keeps), --balloon SIZE (memory that the guest gives up) or --cache-limit SIZE',
  );
}

/** The limit that the option names. */
export function limitOf(values: OptionValues, name: string): LimitWord | undefined {
  const word = text(values, name);
  return word === 'max' || word === 'follow' || word === 'restore' ? word : size(values, name);
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
function notBytes(values: OptionValues, name: string): number | undefined {
  const bytes = size(values, name);
  const given = text(values, name) ?? '';
  if (bytes === undefined || bytes >= PAGE_BYTES || (bytes === 0 && name !== 'memory')) return bytes;
  throw new UsageError(
    `--${name}: ${given} means ${formatSize(bytes)}: write a unit, such as ${given === '0' ? 64 : given}M`,
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
