/** Compares a document with a JSON Schema and names every mistake, in words for an operator. */
import { refusal, type NextStep, type RefusalText } from '../../../protocol/control/refusal.js';
import { nearest } from '../../control/nearest.js';

/** The part of JSON Schema that the configuration file uses. */
export interface Schema {
  readonly title?: string;
  readonly description?: string;
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly anyOf?: readonly Schema[];
  readonly const?: string | number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
}

/** What is wrong with the value that `where` leads to: keys, and indices of arrays. */
export interface ShapeMistake {
  readonly where: readonly string[];
  /** The rest of a sentence whose subject is the key. */
  readonly what: RefusalText;
}

interface ShapeReport {
  readonly mistakes: ShapeMistake[];
  /** The document without what is wrong in it; arrays of tables keep their indices. */
  readonly rest: unknown;
}

type Table = Readonly<Record<string, unknown>>;

/** Every mistake of `document`, which a TOML parser made. */
export function compareShape(schema: Schema, document: unknown): ShapeReport {
  const mistakes: ShapeMistake[] = [];
  const rest = value(schema, document, [], { root: schema, mistakes });
  return { mistakes, rest };
}

/** In words, what a value may be: `a number from 0 to 1`. */
export function kindWords(schema: Schema): string {
  const { title, anyOf, const: only, items, type, minimum, maximum } = schema;
  if (title !== undefined) return title;
  if (only !== undefined) return typeof only === 'string' ? `\`${only}\`` : String(only);
  if (anyOf !== undefined) {
    const words = anyOf.map(kindWords);
    return anyOf.every((one) => typeof one.const === 'string')
      ? `one of ${words.join(', ')}`
      : words.join(' or ');
  }
  if (type === 'array') return items === undefined ? 'an array' : `an array, each ${kindWords(items)}`;
  if (type === 'boolean') return '`true` or `false`';
  if (type === 'number') return `a number from ${minimum ?? 0} to ${maximum ?? 'any'}`;
  return type === 'object' ? 'a table' : `a ${type ?? 'string'}`;
}

interface Context {
  readonly root: Schema;
  readonly mistakes: ShapeMistake[];
}

/** Gone from the rest. */
const WRONG = Symbol('wrong');

function value(schema: Schema, given: unknown, where: readonly string[], context: Context): unknown {
  const wrong = (what: RefusalText): typeof WRONG => {
    context.mistakes.push({ where, what });
    return WRONG;
  };
  if (schema.type === 'object') {
    if (isTable(given)) return table(schema, given, where, context);
    return wrong(
      refusal(`must be a table, and is ${kindOf(given)}`, `write [${where.join('.')}] on a line of its own`),
    );
  }
  if (schema.type === 'array') {
    if (!Array.isArray(given)) {
      const tables = schema.items?.type === 'object';
      const name = where.filter((part) => !/^\d+$/.test(part)).join('.');
      const form: NextStep = tables ? `write [[${name}]] on a line of its own` : 'write it in [brackets]';
      return wrong(refusal(`must be an array, and is ${kindOf(given)}`, form));
    }
    return array(schema, given, where, context);
  }
  return scalarFits(schema, given) ? given : wrong(mustBe(schema, given));
}

function table(schema: Schema, given: Table, where: readonly string[], context: Context): Table {
  const { properties = {}, required = [] } = schema;
  const rest: Record<string, unknown> = {};
  for (const [key, one] of Object.entries(given)) {
    const path = [...where, key];
    const known = Object.hasOwn(properties, key) ? properties[key] : undefined;
    if (known === undefined) {
      context.mistakes.push({ where: path, what: unknownKey(path, properties, context.root) });
      continue;
    }
    const checked = value(known, one, path, context);
    if (checked !== WRONG) rest[key] = checked;
  }
  for (const key of required) {
    if (Object.hasOwn(given, key)) continue;
    context.mistakes.push({
      where,
      what: refusal(`has no ${key}`, `add ${key} = ${example(properties[key] ?? {})}`),
    });
  }
  return rest;
}

function array(
  schema: Schema,
  given: readonly unknown[],
  where: readonly string[],
  context: Context,
): unknown[] {
  const { items = {}, minItems = 0, maxItems = Infinity } = schema;
  if (given.length < minItems || given.length > maxItems) {
    const range = maxItems === Infinity ? `at least ${minItems}` : `${minItems} to ${maxItems}`;
    context.mistakes.push({
      where,
      what: refusal(`must have ${range} entries, and has ${given.length}`, 'add or remove some'),
    });
  }
  const rest = given.map((one, n) => value(items, one, [...where, String(n)], context));
  return items.type === 'object'
    ? rest.map((one) => (one === WRONG ? {} : one))
    : rest.filter((one) => one !== WRONG);
}

function scalarFits(schema: Schema, given: unknown): boolean {
  const { anyOf, const: only, type, minimum = -Infinity, maximum = Infinity } = schema;
  if (anyOf !== undefined) return anyOf.some((one) => scalarFits(one, given));
  if (only !== undefined) return given === only;
  if (type === 'boolean') return typeof given === 'boolean';
  if (type === 'number') {
    return typeof given === 'number' && Number.isFinite(given) && given >= minimum && given <= maximum;
  }
  if (typeof given !== 'string') return false;
  const { minLength = 0, maxLength = Infinity, pattern } = schema;
  if (given.length < minLength || given.length > maxLength) return false;
  return pattern === undefined || new RegExp(pattern, 'u').test(given);
}

function mustBe(schema: Schema, given: unknown): RefusalText {
  const choices = (schema.anyOf ?? []).flatMap(({ const: only }) => (typeof only === 'string' ? [only] : []));
  const said = shown(given);
  if (typeof given === 'string' && given.length > (schema.maxLength ?? Infinity)) {
    return refusal(`has ${Buffer.byteLength(given)} bytes`, `give ${kindWords(schema)}`);
  }
  const kind = kindWords(schema).replaceAll('`', '');
  if (given === '' && kind === 'a string')
    return refusal('is empty', 'write what it stands for, or take it out');
  if (choices.length === 0) return refusal(`must be ${kind}, and is ${said}`, 'give such a value');
  const meant = typeof given === 'string' ? nearest(given, choices) : null;
  const guess: NextStep = meant === null ? 'use one of them' : `did you mean ${meant}?`;
  return refusal(`must be one of ${choices.join(', ')}, and is ${said}`, guess);
}

/** Keys that operators look for, of things that other programs say. */
const NOT_OURS: Readonly<Record<string, RefusalText>> = {
  'qmp.name': refusal(
    "is unknown here, because an adopted VM has QEMU's own name",
    'take it out, and give QEMU the name (-name)',
  ),
};

/** A key that is known elsewhere was most likely put into the wrong table. */
function unknownKey(path: readonly string[], properties: Table, root: Schema): RefusalText {
  const [key = ''] = path.slice(-1);
  const ofTheirs = NOT_OURS[path.filter((part) => !/^\d+$/.test(part)).join('.')];
  if (ofTheirs !== undefined) return ofTheirs;
  const meant = nearest(key, Object.keys(properties));
  if (meant !== null) return refusal('is unknown', `did you mean ${meant}?`);
  const homes = tablesWith(key, root, []);
  if (homes.length > 0) return refusal('is unknown here', `move it to ${homes.join(' or ')}`);
  return refusal('is unknown', 'see balloond.toml(5) for the keys there are');
}

function tablesWith(key: string, schema: Schema, where: readonly string[]): string[] {
  const isArray = schema.type === 'array';
  const { properties = {} } = isArray ? (schema.items ?? {}) : schema;
  const name = where.length === 0 ? 'the top of the file, before any [table]' : where.join('.');
  const here = where.length === 0 ? name : isArray ? `[[${name}]]` : `[${name}]`;
  return [
    ...(Object.hasOwn(properties, key) ? [here] : []),
    ...Object.entries(properties).flatMap(([inner, one]) =>
      one.type === 'object' || one.items?.type === 'object' ? tablesWith(key, one, [...where, inner]) : [],
    ),
  ];
}

function isTable(given: unknown): given is Table {
  return typeof given === 'object' && given !== null && !Array.isArray(given) && !(given instanceof Date);
}

function kindOf(given: unknown): string {
  if (Array.isArray(given)) return 'an array';
  if (given instanceof Date) return 'a date';
  return isTable(given) ? 'a table' : shown(given);
}

function shown(given: unknown): string {
  if (typeof given === 'string') {
    return JSON.stringify(given.length > 60 ? `${given.slice(0, 60)}...` : given);
  }
  return typeof given === 'number' || typeof given === 'boolean' ? String(given) : kindOf(given);
}

function example({ type, title }: Schema): string {
  return type === 'string' ? `"..." (${title ?? 'a string'})` : '...';
}
