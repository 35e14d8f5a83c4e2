/** The file of `balloonctl apply`: targets and limits by the names of VMs, in TOML. */
import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { globMatches } from '../../../protocol/control/glob.js';
import { LIMIT_NAMES } from '../../../protocol/control/limits.js';
import { refusal, RefusingError, type NextStep } from '../../../protocol/control/refusal.js';
import type { LimitRequest } from '../../../protocol/control/schema.js';
import { choice } from '../nearest.js';
import type { OptionValues } from './command-line.js';
import { limitsOf, targetOf, type TargetWish } from './option-values.js';

const TARGETS = ['memory', 'balloon', 'cache-limit'] as const;
const KEYS: readonly string[] = ['match', 'force', ...TARGETS, ...LIMIT_NAMES];

/** The file cannot be honoured; the message says where and why. */
class TargetsFileError extends RefusingError {
  override readonly name = 'TargetsFileError';
}

/** What one table of the file has. */
export interface VmTargets {
  readonly match: string;
  readonly targets: readonly TargetWish[];
  readonly limits: LimitRequest | null;
}

/** Throws TargetsFileError, or the error of the file system. */
export function readTargets(path: string): VmTargets[] {
  return parseTargets(path, readFileSync(path, 'utf8'));
}

/** `path` is for messages. Throws TargetsFileError. */
function parseTargets(path: string, text: string): VmTargets[] {
  let document: Record<string, unknown>;
  try {
    document = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [what = ''] = error.message.replace('Invalid TOML document: ', '').split('\n');
    throw wrong(`${path}:${error.line}:${error.column}: ${what}`, 'mend this line');
  }
  const { vm: tables = [], ...others } = document;
  const [other] = Object.keys(others);
  if (other !== undefined) throw wrong(`${path} has a key ${other}`, 'write [[vm]] tables alone');
  if (!Array.isArray(tables) || !tables.every(isTable))
    throw wrong(`${path}: vm is no array of tables`, 'write [[vm]] above each');
  return tables.map((table, index) => readTable(`${path}: [[vm]] ${index + 1}`, table));
}

/** The last table that matches a name, as with [[vm]] in the configuration; null: none does. */
export function targetsOf(tables: readonly VmTargets[], name: string): VmTargets | null {
  return tables.filter(({ match }) => match === name || globMatches(match, name)).at(-1) ?? null;
}

function readTable(where: string, table: Readonly<Record<string, unknown>>): VmTargets {
  for (const key of Object.keys(table))
    if (!KEYS.includes(key)) throw wrong(`${where} has a key ${key}`, choice(key, KEYS));
  const { match, force } = table;
  if (typeof match !== 'string' || match === '')
    throw wrong(`${where} has no match`, 'write match = "PATTERN"');
  const values: Record<string, string | boolean> = {};
  if (force !== undefined) {
    if (typeof force !== 'boolean') throw wrong(`${where}: force is no boolean`, 'write true or false');
    values['force'] = force;
  }
  for (const key of [...TARGETS, ...LIMIT_NAMES]) {
    const value = table[key];
    if (value === undefined) continue;
    if (typeof value !== 'string') throw wrong(`${where}: ${key} is no text`, `write ${key} = "SIZE"`);
    if (/^\s*[+-]/.test(value))
      throw wrong(`${where}: ${key} is relative`, 'write the size itself, since a file can be applied again');
    values[key] = value;
  }
  return { match, ...inFile(where, values) };
}

/** The values are those of the options of `set` and `limit`. */
function inFile(where: string, values: OptionValues): Omit<VmTargets, 'match'> {
  const has = (names: readonly string[]): string[] => names.filter((name) => values[name] !== undefined);
  try {
    const own = has(['memory', 'balloon', 'force']);
    const targets = [
      ...(own.length > 0 ? [targetOf(Object.fromEntries(own.map((name) => [name, values[name]])))] : []),
      ...(has(['cache-limit']).length > 0 ? [targetOf({ 'cache-limit': values['cache-limit'] })] : []),
    ];
    return { targets, limits: has(LIMIT_NAMES).length > 0 ? limitsOf(values) : null };
  } catch (error) {
    throw wrong(`${where}: ${(error as Error).message.replaceAll('--', '')}`, 'mend this table');
  }
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function wrong(what: string, step: NextStep): TargetsFileError {
  return new TargetsFileError(refusal(what, step));
}
