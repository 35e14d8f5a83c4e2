/**
 * What the HTTP servers of the daemon have in common. No request can grow memory without bound, hold a connection for
 * ever, or end the process.
 */
import { refusal } from '../../protocol/control/refusal.js';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { STREAM_HEADERS } from './event-stream.js';
import { RefusedError } from './fleet.js';
import { CONNECTIONS_MAX, Places, STREAMS_MAX, TURNED_AWAY_MAX } from './places.js';
import { Problem } from './problem.js';
import { PROBLEM_TYPE, refuseRaw, unreadable } from './refuse.js';

const REQUEST_TIMEOUT_MS = 5000;
/** A connection on which nothing moves; longer than any handler takes. */
const IDLE_TIMEOUT_MS = 20_000;
/** A client that there is no place for, and that asks for nothing. */
const TURN_AWAY_MS = 1000;
/** After so long, a network that lost a client is asked whether it is still there. */
const KEEP_ALIVE_MS = 30_000;
const CLOSE_GRACE_MS = 500;

/** A request answered with 4xx or 5xx, for the log. Of those that there is no place for, one a minute. */
export interface Refusal {
  /** Empty, as the URL, where nothing could be read. */
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly detail: string;
  /** The fault in the daemon behind a 500. */
  readonly cause?: unknown;
}

/**
 * What is sent: a JSON document, text of a media type, the methods of a path, or a stream, which takes over the response
 * and needs a place unless it ends by itself.
 */
export type Answer =
  | { document: unknown; headers?: Readonly<Record<string, string>> }
  | { text: string | Uint8Array; type: string }
  | { allow: string }
  | { stream: (response: ServerResponse) => void; ends: boolean };

/** Throws Problem or RefusedError for what cannot be answered. */
type Answering = (request: IncomingMessage, response: ServerResponse) => Answer | Promise<Answer>;

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
  const front = new Front(answering, onRefused);
  const server = createServer(
    {
      requestTimeout: REQUEST_TIMEOUT_MS,
      // Looking more often than this would be most of what an idle daemon does.
      connectionsCheckingInterval: 10_000,
      // Looked at here, so that what is refused is a problem document.
      requireHostHeader: false,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
    },
    (request, response) => void front.answer(request, response),
  );
  server.maxConnections = CONNECTIONS_MAX + TURNED_AWAY_MAX;
  server.setTimeout(IDLE_TIMEOUT_MS);
  server.on('connection', (socket) => front.connected(socket));
  server.on('drop', () => front.full({ method: '', url: '' }));
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const problem = new Problem(417, refusal('no such expectation is met here', 'send no Expect header'));
    front.refuse(request, response, problem);
  });
  server.on('connect', ({ method = '', url = '' }: IncomingMessage, socket: Socket) => {
    const problem = new Problem(405, refusal(`${method} is not served`, 'this is no proxy, use GET'), {
      allow: 'GET',
    });
    front.refuseOn(socket, problem, { method, url });
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    // The client hung up in the middle: it may still read, and nobody else is to hear of it.
    if (error.code === 'HPE_INVALID_EOF_STATE') refuseRaw(socket, unreadable(error.code));
    else front.refuseOn(socket, unreadable(error.code), { method: '', url: '' });
  });
  await new Promise<void>((resolve, reject) => {
    // Stays: an accept that fails later (no fd left) emits 'error', which must not end the process.
    server.on('error', reject);
    server.listen(listen, resolve);
  });

  async function close(): Promise<void> {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    front.endStreams();
    server.closeIdleConnections();
    const grace = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
    await closed;
    clearTimeout(grace);
  }
  return { server, close };
}

/** Answers requests, or refuses them, in each case once. */
class Front {
  readonly #answering: Answering;
  readonly #onRefused: (refusal: Refusal) => void;
  readonly #places = new Places();
  readonly #streams = new Set<ServerResponse>();
  /** The last response of each connection. */
  readonly #responses = new WeakMap<Socket, ServerResponse>();

  constructor(answering: Answering, onRefused: (refusal: Refusal) => void) {
    this.#answering = answering;
    this.#onRefused = onRefused;
  }

  connected(socket: Socket): void {
    if (this.#places.come(socket)) return;
    // It is told so in answer to its request: what is sent sooner can be lost when the connection is closed.
    const silent = setTimeout(() => {
      if (!this.#responses.has(socket)) this.refuseOn(socket, NO_CONNECTION, { method: '', url: '' });
    }, TURN_AWAY_MS);
    socket.once('close', () => clearTimeout(silent));
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#responses.set(request.socket, response);
    try {
      if (!this.#places.hasPlace(request.socket)) throw NO_CONNECTION;
      checkHost(request);
      request.url = originForm(request.url ?? '');
      const reply = await this.#answering(request, response);
      if ('stream' in reply) this.#stream(request, response, reply);
      else if ('allow' in reply) response.writeHead(204, { allow: reply.allow }).end();
      else if ('text' in reply) send(response, 200, reply.type, reply.text);
      else send(response, 200, 'application/json', json(reply.document), reply.headers);
    } catch (error) {
      // The client hung up before its body was complete: nobody is left to answer.
      if (request.destroyed && !request.complete) return;
      this.refuse(request, response, asProblem(error));
    }
  }

  refuse({ method = '', url = '' }: IncomingMessage, response: ServerResponse, problem: Problem): void {
    this.#tell(problem, { method, url });
    send(response, problem.status, PROBLEM_TYPE, json(problem.document()), problem.headers);
  }

  /** Where there is no response object. */
  refuseOn(socket: Socket, problem: Problem, { method, url }: { method: string; url: string }): void {
    const last = this.#responses.get(socket);
    // Behind the beginning of an answer a second one would be taken for its end.
    const begun = last !== undefined && last.headersSent && !last.writableFinished;
    if (begun || !socket.writable) {
      socket.destroy();
      return;
    }
    this.#tell(problem, { method, url });
    refuseRaw(socket, problem);
  }

  /** A connection was closed at once: even those that are turned away have taken all places. */
  full(request: { method: string; url: string }): void {
    this.#tell(NO_CONNECTION, request);
  }

  endStreams(): void {
    for (const stream of this.#streams) stream.end();
  }

  #stream(
    request: IncomingMessage,
    response: ServerResponse,
    reply: Extract<Answer, { stream: unknown }>,
  ): void {
    if (request.method === 'HEAD') {
      response.writeHead(200, STREAM_HEADERS).end();
      return;
    }
    if (!reply.ends) {
      const leave = this.#places.stream();
      if (leave === null) throw NO_STREAM;
      this.#streams.add(response);
      response.on('close', () => {
        this.#streams.delete(response);
        leave();
      });
    }
    reply.stream(response);
  }

  #tell({ status, detail, cause }: Problem, request: { method: string; url: string }): void {
    if (status === 503 && !this.#places.mayBeSaid(detail)) return;
    this.#onRefused({ ...request, status, detail, ...(cause !== undefined && { cause }) });
  }
}

const NO_CONNECTION = new Problem(
  503,
  refusal(`all ${CONNECTIONS_MAX} connections are in use`, 'try again, or end clients that hold one'),
  { 'retry-after': '1', connection: 'close' },
);
const NO_STREAM = new Problem(
  503,
  refusal(
    `all ${STREAMS_MAX} places for streams are taken`,
    'end a client that follows events or shows the page, or read events with follow=false',
  ),
  { 'retry-after': '5' },
);

/** RFC 9112, 3.2. Its value means nothing here. */
function checkHost({ httpVersion, rawHeaders }: IncomingMessage): void {
  const hosts = rawHeaders.filter((name, at) => at % 2 === 0 && name.toLowerCase() === 'host').length;
  if (hosts > 1) throw new Problem(400, refusal(`there are ${hosts} Host headers`, 'send one'));
  if (hosts === 0 && httpVersion === '1.1') {
    throw new Problem(400, refusal('the Host header is missing', 'send one, such as Host: localhost'));
  }
}

/** A target in absolute form names a host, which can only be this one. */
function originForm(url: string): string {
  const origin = /^https?:\/\/[^/?#]*/i.exec(url)?.[0];
  if (origin === undefined) return url;
  const rest = url.slice(origin.length);
  return rest.startsWith('/') ? rest : `/${rest}`;
}

function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof RefusedError) return new Problem(409, error.message);
  const detail = refusal(
    'the daemon failed on this request',
    'see its log for why (event control-request-failed)',
  );
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
