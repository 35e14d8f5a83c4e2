/** What is wrong with a document that a schema does not allow: the field, and the rule that it breaks. */
import { refusal, type NextStep, type RefusalText } from '../../protocol/control/refusal.js';
import { Check } from 'typebox/schema';
import { choice } from './nearest.js';

/** What is used of JSON Schema. */
export interface Schema {
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly enum?: readonly unknown[];
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
}

/** Of a field that nobody knows. */
const SHOWN_CHARACTERS = 60;

/** One sentence, such as `limits.high: write bytes as …`; null when nothing is wrong. `hint` says what a whole body may be. */
export function bodyFault(schema: Schema, document: unknown, hint: NextStep): RefusalText | null {
  if (Check(schema, document)) return null;
  return fault(schema, document, [], hint) ?? refusal('the body cannot be read', hint);
}

function fault(schema: Schema, value: unknown, path: readonly string[], hint: NextStep): RefusalText | null {
  const where = path.length === 0 ? 'the body' : path.join('.');
  const branches = (schema.anyOf ?? [schema]).filter(({ properties }) => properties !== undefined);
  if (branches.length === 0) return refusal(where, rule(schema));
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return path.length === 0
      ? refusal('the body is no JSON object', hint)
      : refusal(where, 'write an object');
  }
  const known = [...new Set(branches.flatMap(({ properties }) => Object.keys(properties ?? {})))];
  const given = Object.keys(value);
  const unknown = given.find((key) => !known.includes(key));
  if (unknown !== undefined) {
    const key = JSON.stringify([...path, unknown.slice(0, SHOWN_CHARACTERS)].join('.'));
    return refusal(`${key} is no field`, choice(unknown, known));
  }
  const fitting = branches.find(({ properties }) =>
    given.every((key) => Object.hasOwn(properties ?? {}, key)),
  );
  if (fitting === undefined) return refusal(`${given.join(' and ')} exclude each other`, hint);
  if (given.length === 0)
    return refusal(`${where} has no field`, path.length === 0 ? hint : choice('', known));
  const missing = fitting.required?.find((key) => !given.includes(key));
  if (missing !== undefined) return refusal(`${[...path, missing].join('.')} is missing`, hint);
  for (const [key, own] of Object.entries(fitting.properties ?? {})) {
    const part = (value as Record<string, unknown>)[key];
    if (given.includes(key) && !Check(own, part)) return fault(own, part, [...path, key], hint);
  }
  return null;
}

/** What a value has to be, as an order. */
function rule(schema: Schema): NextStep {
  const { maxLength } = schema;
  if (schema.type === 'string' && maxLength !== undefined) {
    return `write one line of ${schema.minLength ?? 0} to ${maxLength} characters`;
  }
  return `write ${words(schema)}`;
}

function words({ type, anyOf, enum: choices, minLength }: Schema): string {
  if (anyOf !== undefined) return anyOf.map(words).join(', or ');
  if (choices !== undefined) return choices.map(String).join(', ');
  if (type === 'integer') return 'bytes as a whole number of 0 or more';
  if (type === 'boolean') return 'true or false';
  if (type === 'string') return minLength === undefined ? 'a string' : 'a string that is not empty';
  return `a value of type ${String(type)}`;
}
