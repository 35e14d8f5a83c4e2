import t from 'tap';
import { openApiDocument } from '../../../protocol/control/openapi.js';
import { OPERATIONS } from '../../../protocol/control/operations.js';
import { SCHEMAS } from '../../../protocol/control/schema.js';

interface Document {
  openapi: string;
  info: { version: string };
  paths: Record<string, Record<string, { operationId: string; parameters?: { name: string; in: string }[] }>>;
}

const text = JSON.stringify(openApiDocument('1.2.3'));
const document = JSON.parse(text) as Document;

void t.test('every operation is there once, at its path and method', (t) => {
  const described = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, { operationId }]) => `${operationId} ${method.toUpperCase()} ${path}`),
  );
  const served = Object.entries(OPERATIONS).map(([id, { method, path }]) => `${id} ${method} ${path}`);
  t.strictSame(described.sort(), served.sort());
  t.equal(document.openapi, '3.1.0');
  t.equal(document.info.version, '1.2.3');
  t.end();
});

void t.test('every placeholder of a path is a parameter and the reverse', (t) => {
  for (const [path, item] of Object.entries(document.paths)) {
    const placeholders = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    for (const { parameters = [] } of Object.values(item)) {
      t.strictSame(
        parameters.filter((parameter) => parameter.in === 'path').map(({ name }) => name),
        placeholders,
        path,
      );
    }
  }
  t.end();
});

void t.test('every reference leads to a schema, and every schema is used', (t) => {
  const referred = new Set([...text.matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name));
  t.strictSame([...referred].sort(), Object.keys(SCHEMAS).sort());
  t.end();
});
