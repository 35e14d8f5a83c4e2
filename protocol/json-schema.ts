/**
 * Makes JSON Schemas (2020-12) with the TypeScript types of the documents that they allow: `Type.Object`, `Type.String` and
 * so on, and `Static<typeof SCHEMA>`. The types are those of typebox. The builders are not: those of typebox take 20 ms at
 * each start of the daemon, for which guests wait.
 */
import type * as Typebox from 'typebox';

export type { Static } from 'typebox';

type Json = Readonly<Record<string, unknown>>;

/** Marks a property that may be missing. JSON does not show the mark. */
const OPTIONAL = Symbol('optional');

const builders = {
  Array: (items: Json, options?: Json): Json => ({ type: 'array', items, ...options }),
  Boolean: ofType('boolean'),
  Integer: ofType('integer'),
  Literal: (value: string | number): Json => ({ type: typeof value, const: value }),
  Null: ofType('null'),
  Number: ofType('number'),
  Object: (properties: Readonly<Record<string, Json>>, options?: Json): Json => {
    const required = Object.entries(properties).filter(([, schema]) => !(OPTIONAL in schema));
    return {
      type: 'object',
      ...(required.length > 0 && { required: required.map(([key]) => key) }),
      properties,
      ...options,
    };
  },
  Optional: (schema: Json): Json => ({ ...schema, [OPTIONAL]: true }),
  /** Any string is a key. */
  Record: (_key: Json, values: Json): Json => ({ type: 'object', additionalProperties: values }),
  String: ofType('string'),
  Union: (anyOf: readonly Json[]): Json => ({ anyOf }),
  Unsafe: (schema: Json): Json => schema,
};

export const Type = builders as unknown as Pick<typeof Typebox, keyof typeof builders>;

function ofType(type: string): (options?: Json) => Json {
  return (options) => ({ type, ...options });
}
