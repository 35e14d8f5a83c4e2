/** Finds the operation a request line means. Refuses before anything of the body is read. */
import { OPERATIONS, type Operation, type OperationId } from '../../protocol/control/operations.js';
import { Problem } from './problem.js';

export interface Route {
  readonly id: OperationId;
  readonly operation: Operation;
  /** The decoded `{vm}` of the path; empty where the path has none. */
  readonly vm: string;
  readonly query: Query;
}

export interface Query {
  readonly refresh?: boolean;
  readonly follow?: boolean;
  readonly since?: number;
}

interface Row {
  readonly id: OperationId;
  readonly operation: Operation;
  readonly segments: readonly string[];
}

const ROWS: readonly Row[] = (Object.keys(OPERATIONS) as OperationId[]).map((id) => ({
  id,
  operation: OPERATIONS[id],
  segments: OPERATIONS[id].path.split('/'),
}));

/** `url` is the request target as sent. Throws Problem 400, 404 or 405. */
export function findRoute(method: string, url: string): Route {
  const queryAt = url.indexOf('?');
  const path = queryAt < 0 ? url : url.slice(0, queryAt);
  const segments = path.split('/');
  const candidates = ROWS.filter((row) => matches(row.segments, segments));
  if (candidates.length === 0) {
    throw new Problem(404, 'no such path: see GET /openapi.json for all there are');
  }
  const row = candidates.find((candidate) => candidate.operation.method === method);
  if (row === undefined) {
    const allowed = candidates.map((candidate) => candidate.operation.method).join(', ');
    throw new Problem(405, `${method} is not for this path: use ${allowed}`, { allow: allowed });
  }
  const encoded = segments[row.segments.indexOf('{vm}')] ?? '';
  const query = parseQuery(row.operation, queryAt < 0 ? '' : url.slice(queryAt + 1));
  return { id: row.id, operation: row.operation, vm: decode(encoded), query };
}

function matches(pattern: readonly string[], segments: readonly string[]): boolean {
  if (pattern.length !== segments.length) return false;
  return pattern.every((part, index) =>
    part === '{vm}' ? segments[index] !== '' : part === segments[index],
  );
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new Problem(400, 'the VM name in the path cannot be read: send it as percent-encoded UTF-8');
  }
}

function parseQuery(operation: Operation, text: string): Query {
  const query: Record<string, boolean | number> = {};
  const known = operation.query ?? {};
  for (const [name, value] of new URLSearchParams(text)) {
    if (!Object.hasOwn(known, name)) {
      const names = Object.keys(known).join(', ') || 'none';
      throw new Problem(400, `unknown query parameter ${JSON.stringify(name)}: give ${names}`);
    }
    query[name] = known[name]?.type === 'integer' ? parseInteger(name, value) : parseBoolean(name, value);
  }
  return query;
}

function parseInteger(name: string, value: string): number {
  const number = Number(value);
  if (!/^\d+$/.test(value) || !Number.isSafeInteger(number)) {
    throw new Problem(400, `${name} cannot be read: give a whole number, 0 or more`);
  }
  return number;
}

function parseBoolean(name: string, value: string): boolean {
  if (value !== 'true' && value !== 'false')
    throw new Problem(400, `${name} cannot be read: give true or false`);
  return value === 'true';
}
