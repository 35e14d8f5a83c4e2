/**
 * What the HTTP servers of the daemon have in common. No request can grow memory without bound, hold a connection for
 * ever, or end the process.
 */
import {
  createServer,
  STATUS_CODES,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Duplex } from 'node:stream';
import { RefusedError } from './fleet.js';
import { Problem } from './problem.js';

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

/** What is sent: a JSON document, or text of a media type. Null: the response was taken over, it is a stream. */
export type Answer = { document: unknown } | { text: string | Uint8Array; type: string } | null;

/** Throws Problem or RefusedError for what cannot be answered. */
export type Answering = (request: IncomingMessage, response: ServerResponse) => Answer | Promise<Answer>;

export interface HttpServer {
  readonly server: Server;
  /** Ends streams, lets replies under way go out. */
  close: () => Promise<void>;
}

/** Listens where `listen` says: an fd, or host and port. Rejects with the error of node:net when it cannot. */
export async function startHttpServer(
  listen: { fd: number } | { host: string; port: number },
  answering: Answering,
  onRefused: (refusal: Refusal) => void,
): Promise<HttpServer> {
  const streams = new Set<ServerResponse>();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const reply = await answering(request, response);
      if (reply === null) {
        streams.add(response);
        response.on('close', () => streams.delete(response));
      } else if ('text' in reply) send(response, 200, reply.type, reply.text);
      else send(response, 200, 'application/json', json(reply.document));
    } catch (error) {
      // The client hung up before its body was complete: nobody is left to answer.
      if (request.destroyed && !request.complete) return;
      const problem = asProblem(error);
      const { status, detail, cause } = problem;
      const { method = '', url = '' } = request;
      onRefused({ method, url, status, detail, ...(cause !== undefined && { cause }) });
      send(response, status, 'application/problem+json', json(problem.document()), problem.headers);
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
  await new Promise<void>((resolve, reject) => {
    // Stays: an accept that fails later (no fd left) emits 'error', which must not end the process.
    server.on('error', reject);
    server.listen(listen, resolve);
  });

  async function close(): Promise<void> {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const stream of streams) stream.end();
    server.closeIdleConnections();
    const grace = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
    await closed;
    clearTimeout(grace);
  }
  return { server, close };
}

function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof RefusedError) return new Problem(409, error.message);
  const detail = 'the daemon failed on this request: see its log for why (event control-request-failed)';
  return new Problem(500, detail, {}, { cause: error });
}

function json(document: unknown): string {
  return `${JSON.stringify(document)}\n`;
}

function send(
  response: ServerResponse,
  status: number,
  contentType: string,
  body: string | Uint8Array,
  headers: Readonly<Record<string, string>> = {},
): void {
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
  const body = json(problem.document());
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
