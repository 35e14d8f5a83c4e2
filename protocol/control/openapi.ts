/** The OpenAPI 3.1 document, built from the operations table and the schemas: it says nothing of its own. */
import { OPERATIONS, type Operation, type QueryParameter } from './operations.js';
import { SCHEMAS, type SchemaName } from './schema.js';

type Json = Record<string, unknown>;

const DESCRIPTION = [
  'HTTP/1.1 with JSON on a Unix socket.',
  'HEAD is answered as GET without a body, and OPTIONS with the methods of the path in `Allow`.',
  'Each answer with a status of 400 or above is an `application/problem+json` document; its `detail` says what is wrong, naming the field where one is, and what to do.',
  'A path with the name of a VM that there is none of is 404, whatever else is wrong with the request.',
].join(' ');

/** `version` is the daemon's. */
export function openApiDocument(version: string): Json {
  const paths: Record<string, Json> = {};
  for (const [operationId, operation] of Object.entries<Operation>(OPERATIONS)) {
    const item = (paths[operation.path] ??= {});
    item[operation.method.toLowerCase()] = operationObject(operationId, operation);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'balloond control API', version, description: DESCRIPTION },
    paths,
    components: { schemas: SCHEMAS },
  };
}

const LAST_EVENT_ID = {
  name: 'Last-Event-ID',
  in: 'header',
  description: 'Go on after the event of this id, as a client does that was cut off. It wins over `since`.',
  schema: { type: 'string' },
};

const IF_MATCH = {
  name: 'If-Match',
  in: 'header',
  description: 'Change the VM only while its orders are those of this `ETag`.',
  schema: { type: 'string' },
};
const ETAG = {
  ETag: {
    description:
      'Of the orders for the VM and its interval of statistics: it does not change with the figures.',
    schema: { type: 'string' },
  },
};

function operationObject(operationId: string, operation: Operation): Json {
  const named = operation.path.includes('{vm}');
  const parameters = [
    ...(named ? [{ name: 'vm', in: 'path', required: true, schema: { type: 'string' } }] : []),
    ...Object.entries<QueryParameter>(operation.query ?? {}).map(([name, parameter]) => {
      const { type, description, enum: choices, pattern } = parameter;
      const schema = { type, ...(choices && { enum: choices }), ...(pattern !== undefined && { pattern }) };
      return { name, in: 'query', description, schema };
    }),
    ...(operation.streams === true ? [LAST_EVENT_ID] : []),
    ...(operation.tagged === true && operation.method !== 'GET' ? [IF_MATCH] : []),
  ];
  const readable = operation.body !== undefined || operation.query !== undefined;
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
        ...(operation.tagged === true && { headers: ETAG }),
        content: {
          [operation.streams ? 'text/event-stream' : (operation.text ?? 'application/json')]: {
            schema: reference(operation.reply),
          },
        },
      },
      ...(readable && {
        400: problem('The body or the query is wrong; the detail names the field and the rule.'),
      }),
      ...((named || operation.namesVm === true) && {
        404: problem('No VM has this name; the detail lists the known names.'),
      }),
      ...(operation.body !== undefined && { 413: problem('The body is too large.') }),
      ...(operation.conflict !== undefined && { 409: problem(operation.conflict) }),
      ...(operation.tagged === true &&
        operation.method !== 'GET' && {
          412: problem('The orders for the VM are not those of `If-Match`.'),
        }),
      ...(operation.streams === true && {
        503: problem('All places for streams are taken; see `Retry-After`.'),
      }),
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
