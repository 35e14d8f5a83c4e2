/**
 * The control API: HTTP/1.1 with JSON on a Unix socket that only its owner and group may open. No request
 * can grow memory without bound, hold a connection for ever, or end the process.
 */
import { rmSync } from 'node:fs';
import { createServer, STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { closeFd } from '../os/fd.js';
import { listenUnix } from '../os/socket.js';
import { streamEvents } from './event-stream.js';
import { RefusedError, type EventSource, type Fleet, type Reload } from './fleet.js';
import { HANDLERS } from './handlers.js';
import { Problem } from './problem.js';
import { findRoute } from './route.js';

const SOCKET_MODE = 0o660;
/** Clients beyond this are turned away, so that they cannot use up the fds that VMs need. */
const CONNECTIONS_MAX = 64;
const REQUEST_TIMEOUT_MS = 5000;
/** A connection on which nothing moves; longer than any handler takes. */
const IDLE_TIMEOUT_MS = 20_000;
const CLOSE_GRACE_MS = 500;

/** A request answered with 4xx or 5xx, for the log. */
export interface Refusal {
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly detail: string;
  /** The fault in the daemon behind a 5xx. */
  readonly cause?: unknown;
}

/**
 * Listens on `path`, taking over a stale socket there but never a live one (SystemError EADDRINUSE).
 * `version` is the daemon's; `onRefused` hears of each 4xx and 5xx, `reload` reads the configuration again. `close` ends the event streams, lets replies under way go out, and unlinks.
 */
export async function startControlServer(
  path: string,
  fleet: Fleet,
  events: EventSource,
  version: string,
  onRefused: (refusal: Refusal) => void = () => undefined,
  reload: Reload = noFile,
): Promise<{ close(): Promise<void> }> {
  const streams = new Set<ServerResponse>();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const method = request.method ?? '';
    const url = request.url ?? '';
    try {
      const route = findRoute(method, url);
      if (route.id === 'streamEvents') {
        streams.add(response);
        response.on('close', () => streams.delete(response));
        const { since, follow } = route.query;
        streamEvents(response, events, { sinceSeq: since ?? null, follow: follow ?? true });
        return;
      }
      const document: unknown = await HANDLERS[route.id]({ route, request, fleet, version, reload });
      send(response, 200, 'application/json', document);
    } catch (error) {
      // The client hung up before its body was complete: nobody is left to answer.
      if (request.destroyed && !request.complete) return;
      const problem = asProblem(error);
      const { status, detail, cause } = problem;
      onRefused({ method, url, status, detail, ...(cause !== undefined && { cause }) });
      send(response, status, 'application/problem+json', problem.document(), problem.headers);
    }
  }

  const server = createServer(
    {
      requestTimeout: REQUEST_TIMEOUT_MS,
      // Looking more often than this would be most of what an idle daemon does.
      connectionsCheckingInterval: 10_000,
    },
    (request, response) => void answer(request, response),
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.setTimeout(IDLE_TIMEOUT_MS);
  server.on('clientError', rejectMalformed);

  const fd = listenUnix(path, SOCKET_MODE);
  try {
    await new Promise<void>((resolve, reject) => {
      // Stays: an accept that fails later (no fd left) emits 'error', which must not end the process.
      server.on('error', reject);
      server.listen({ fd }, resolve);
    });
  } catch (error) {
    closeFd(fd);
    throw error;
  }

  async function close(): Promise<void> {
    // While this listens nobody else takes the path over, so it is still ours to remove.
    rmSync(path, { force: true });
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const stream of streams) stream.end();
    server.closeIdleConnections();
    const grace = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
    await closed;
    clearTimeout(grace);
  }
  return { close };
}

function noFile(): never {
  throw new RefusedError('there is no configuration file to read again: start balloond with --config FILE');
}

function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof RefusedError) return new Problem(409, error.message);
  const detail = 'the daemon failed on this request: its log says why (event control-request-failed)';
  return new Problem(500, detail, {}, { cause: error });
}

function send(
  response: ServerResponse,
  status: number,
  contentType: string,
  document: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  const body = `${JSON.stringify(document)}\n`;
  response.writeHead(status, {
    ...headers,
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}

/** What node:http could not parse, or what did not arrive in time, before there is a response object. */
function rejectMalformed(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const problem = malformed(error.code);
  const body = `${JSON.stringify(problem.document())}\n`;
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? ''}\r\n` +
      'content-type: application/problem+json\r\nconnection: close\r\n' +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

function malformed(code: string | undefined): Problem {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new Problem(408, 'the request did not arrive in time: send it in one go');
  }
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new Problem(431, 'the request headers are too large: send fewer');
  }
  return new Problem(400, 'this is not an HTTP/1.1 request: use balloonctl or curl --unix-socket');
}
