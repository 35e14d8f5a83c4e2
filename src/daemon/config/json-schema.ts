/** The JSON Schema of the configuration file, for editors and other checkers: the parser's own, with words. */
import { CONFIG_SCHEMA } from './read.js';
import type { Schema } from './shape.js';
import { TABLE_WORDS } from './words.js';

/** Where the schema is installed. */
export const SCHEMA_PATH = '/usr/share/balloond/balloond.schema.json';

/** As JSON text. */
export function configSchemaText(): string {
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Configuration of balloond (balloond.toml)',
    ...described(CONFIG_SCHEMA, []),
  };
  return JSON.stringify(schema, null, 2);
}

/** What the schema has at the table that `path` leads to. */
export function tableSchema(path: readonly string[]): Schema {
  return path.reduce<Schema>((schema, key) => {
    const property = schema.properties?.[key] ?? {};
    return property.items ?? property;
  }, CONFIG_SCHEMA);
}

function described(schema: Schema, path: readonly string[]): Schema {
  if (schema.items?.type === 'object') return { ...schema, items: described(schema.items, path) };
  if (schema.type !== 'object') return schema;
  const words = TABLE_WORDS.find((table) => table.path.join('.') === path.join('.'))?.keys ?? {};
  const properties = Object.entries(schema.properties ?? {}).map(([key, value]) => {
    const table = TABLE_WORDS.find((one) => one.path.join('.') === [...path, key].join('.'));
    const said = words[key];
    const standard = said?.default === undefined ? '' : ` The default is ${said.default}.`;
    const description = table?.text ?? `${said?.text ?? ''}${standard}`;
    return [
      key,
      { description: description.replaceAll('`', ''), ...described(value, [...path, key]) },
    ] as const;
  });
  return { ...schema, properties: Object.fromEntries(properties) };
}
