/** Finds the operation a request line means. Refuses before anything of the body is read. */
import { refusal } from '../../protocol/control/refusal.js';
import {
  OPERATIONS,
  type Operation,
  type OperationId,
  type QueryParameter,
} from '../../protocol/control/operations.js';
import type { EventLevel } from '../../protocol/control/events.js';
import { choice } from './nearest.js';
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
  readonly since?: string;
  readonly vm?: string;
  readonly level?: EventLevel;
  readonly 'dry-run'?: boolean;
}

/** Of a name that nobody knows. */
const SHOWN_CHARACTERS = 60;

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

/** `url` is the request target, an absolute path. HEAD is GET. Throws Problem 400, 404 or 405. */
export function findRoute(method: string, url: string): Route {
  const { path, query: text } = parts(url);
  const segments = path.split('/');
  const candidates = rowsOf(path);
  const wanted = method === 'HEAD' ? 'GET' : method;
  const row = candidates.find((candidate) => candidate.operation.method === wanted);
  if (row === undefined) {
    const allow = allowedMethods(candidates);
    throw new Problem(405, refusal(`${method} is not for this path`, `use ${allow}`), { allow });
  }
  const encoded = segments[row.segments.indexOf('{vm}')] ?? '';
  const query = parseQuery(row.operation, text);
  return { id: row.id, operation: row.operation, vm: decode(encoded), query };
}

/** What OPTIONS answers in `Allow`; `*` is the server as a whole. Throws Problem 404. */
export function methodsOf(url: string): string {
  return allowedMethods(url === '*' ? ROWS : rowsOf(parts(url).path));
}

function parts(url: string): { path: string; query: string } {
  const at = url.indexOf('?');
  return at < 0 ? { path: url, query: '' } : { path: url.slice(0, at), query: url.slice(at + 1) };
}

/** At least one. */
function rowsOf(path: string): readonly Row[] {
  const segments = path.split('/');
  const rows = ROWS.filter((row) => matches(row.segments, segments));
  if (rows.length === 0)
    throw new Problem(404, refusal('no such path', 'see GET /openapi.json for all there are'));
  return rows;
}

function allowedMethods(rows: readonly Row[]): string {
  const methods = new Set(
    rows.flatMap(({ operation: { method } }) => (method === 'GET' ? ['GET', 'HEAD'] : [method])),
  );
  return [...methods, 'OPTIONS'].join(', ');
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
    throw new Problem(
      400,
      refusal('the VM name in the path cannot be read', 'send it as percent-encoded UTF-8'),
    );
  }
}

function parseQuery(operation: Operation, text: string): Query {
  const query: Record<string, boolean | string> = {};
  const known: Readonly<Record<string, QueryParameter>> = operation.query ?? {};
  for (const [name, value] of new URLSearchParams(text)) {
    const parameter = Object.hasOwn(known, name) ? known[name] : undefined;
    if (parameter === undefined) {
      const shown = JSON.stringify(name.slice(0, SHOWN_CHARACTERS));
      throw new Problem(400, refusal(`unknown query parameter ${shown}`, choice(name, Object.keys(known))));
    }
    if (Object.hasOwn(query, name)) throw new Problem(400, refusal(`${name} is there twice`, 'give it once'));
    query[name] = parseValue(name, parameter, value);
  }
  return query;
}

function parseValue(
  name: string,
  { type, enum: choices, pattern, form }: QueryParameter,
  value: string,
): boolean | string {
  const words = type === 'boolean' ? ['true', 'false'] : choices;
  if (words?.includes(value) === false) {
    throw new Problem(400, refusal(`${name} cannot be read`, `give ${words.join(' or ')}`));
  }
  if (type === 'boolean') return value === 'true';
  // A + that was not encoded.
  const text = pattern === undefined ? value : value.replace(' ', '+');
  if (pattern !== undefined && !new RegExp(pattern).test(text)) {
    throw new Problem(400, refusal(`${name} cannot be read`, `give ${form ?? pattern}`));
  }
  if (text === '') throw new Problem(400, refusal(`${name} is empty`, 'give a value, or leave it out'));
  return text;
}
