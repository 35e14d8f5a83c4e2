/** The OpenAPI 3.1 document, built from the operations table and the schemas: it says nothing of its own. */
import { OPERATIONS, type Operation } from './operations.js';
import { SCHEMAS, type SchemaName } from './schema.js';

type Json = Record<string, unknown>;

/** `version` is the daemon's. */
export function openApiDocument(version: string): Json {
  const paths: Record<string, Json> = {};
  for (const [operationId, operation] of Object.entries<Operation>(OPERATIONS)) {
    const item = (paths[operation.path] ??= {});
    item[operation.method.toLowerCase()] = operationObject(operationId, operation);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'balloond control API', version },
    paths,
    components: { schemas: SCHEMAS },
  };
}

function operationObject(operationId: string, operation: Operation): Json {
  const named = operation.path.includes('{vm}');
  const parameters = [
    ...(named ? [{ name: 'vm', in: 'path', required: true, schema: { type: 'string' } }] : []),
    ...Object.entries(operation.query ?? {}).map(([name, { type, description }]) => ({
      name,
      in: 'query',
      description,
      schema: type === 'integer' ? { type, minimum: 0 } : { type },
    })),
  ];
  return {
    operationId,
    summary: operation.summary,
    ...(parameters.length > 0 && { parameters }),
    ...(operation.body && {
      requestBody: {
        required: operation.body.required,
        content: { 'application/json': { schema: reference(operation.body.schema) } },
      },
    }),
    responses: {
      200: {
        description: operation.summary,
        content: {
          [operation.streams ? 'text/event-stream' : (operation.text ?? 'application/json')]: {
            schema: reference(operation.reply),
          },
        },
      },
      ...(named && { 404: problem('No VM has this name; the detail lists the known names.') }),
      ...(operation.conflict !== undefined && { 409: problem(operation.conflict) }),
      default: problem('Refused; the detail says what to do.'),
    },
  };
}

function problem(description: string): Json {
  return { description, content: { 'application/problem+json': { schema: reference('Problem') } } };
}

function reference(name: SchemaName): Json {
  return { $ref: `#/components/schemas/${name}` };
}
