/**
 * The control API: HTTP/1.1 with JSON on a Unix socket that only its owner and group may open, its client, and the server of
 * metrics. The daemon starts server (this file). A request goes through places (who may be served), http (limits of size and
 * time), route (protocol/control/operations.ts), body (checked against the schema) and handlers, which call the Fleet
 * (fleet.ts is its interface); a refusal is a problem document. event-stream and live-feed are streams that stay. balloonctl
 * (cli/) goes through client.
 */
import { refusal } from '../../protocol/control/refusal.js';
import { rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { OPERATIONS } from '../../protocol/control/operations.js';
import type { VmView } from '../../protocol/control/schema.js';
import { closeFd } from '../os/fd.js';
import { listenUnix } from '../os/socket.js';
import { lastEventId, parseSince } from './event-replay.js';
import { streamEvents, type StreamOptions } from './event-stream.js';
import { etagOf } from './etag.js';
import type { DaemonControl, EventSource, Fleet } from './fleet.js';
import { HANDLERS } from './handlers.js';
import { startHttpServer, type HttpServer, type Refusal } from './http.js';
import { Problem } from './problem.js';
import { findRoute, methodsOf, type Query } from './route.js';

const SOCKET_MODE = 0o660;

export interface ControlServer {
  close(stays?: boolean): Promise<void>;
}

/**
 * Listens on `path`, taking over a stale socket there but never a live one (SystemError EADDRINUSE).
 * `version` is the daemon's; `onRefused` hears of each 4xx and 5xx. `close` ends the event streams and lets replies under
 * way go out; `stays` keeps the socket in its folder, by which clients tell that the next daemon is on its way.
 */
export async function startControlServer(
  path: string,
  fleet: Fleet,
  events: EventSource,
  version: string,
  daemon: DaemonControl,
  onRefused: (refusal: Refusal) => void = () => undefined,
): Promise<ControlServer> {
  const fd = listenUnix(path, SOCKET_MODE);
  let http: HttpServer;
  try {
    http = await startHttpServer(
      { fd },
      async (request) => {
        const { method = '', url = '' } = request;
        if (method === 'OPTIONS') return { allow: methodsOf(url) };
        const route = findRoute(method, url);
        if (route.id === 'streamEvents') {
          const options = streamOptions(request, route.query);
          return { stream: (response) => streamEvents(response, events, options), ends: !options.follow };
        }
        const document: unknown = await HANDLERS[route.id]({ route, request, fleet, version, daemon });
        const { text: type, tagged } = route.operation;
        if (type !== undefined) return { text: String(document), type };
        return { document, ...(tagged === true && { headers: { etag: etagOf(document as VmView) } }) };
      },
      onRefused,
    );
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return {
    close: (stays = false) => {
      // While this listens nobody else takes the path over, so it is still ours to remove.
      if (!stays) rmSync(path, { force: true });
      return http.close();
    },
  };
}

function streamOptions(request: IncomingMessage, { since, follow, vm, level }: Query): StreamOptions {
  const last = request.headers['last-event-id'];
  const given = since === undefined ? null : parseSince(since);
  if (since !== undefined && given === null) {
    throw new Problem(
      400,
      refusal('since cannot be read', `give ${OPERATIONS.streamEvents.query.since.form}`),
    );
  }
  return {
    // Browsers send the first query again when they come back.
    since: typeof last === 'string' ? lastEventId(last) : given,
    filter: { vm, level },
    follow: follow ?? true,
  };
}
