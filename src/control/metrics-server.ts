/**
 * What is served on TCP where that is asked for: metrics, and a page to look at. Nothing can be changed through it, and
 * nothing that a VM is called, or an event says, becomes part of the page but as text.
 */
import { refusal, type NextStep } from '../../protocol/control/refusal.js';
import { VM_SERIES, vmSeries, type LiveHistory } from '../../protocol/control/live.js';
import type { AddressInfo } from 'node:net';
import type { EventSource, Fleet } from './fleet.js';
import { lastEventId } from './event-replay.js';
import { streamEvents } from './event-stream.js';
import { startHttpServer, type Answer, type Refusal } from './http.js';
import { LiveFeed, type History } from './live-feed.js';
import { Problem } from './problem.js';

export interface MetricsAddress {
  readonly host: string;
  readonly port: number;
}

/** Files of the page by their path, `/` for the page itself. */
export type PageFiles = Readonly<Record<string, { readonly type: string; readonly text: string }>>;

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
};
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

const OF_THE_UNIT =
  'allow the unit its network by the drop-in of METRICS ON TCP in balloond(8), or read /metrics on the control socket';
const REMEDIES: Readonly<Record<string, NextStep>> = {
  EACCES: 'choose a port above 1023',
  EADDRINUSE: 'choose another port, or stop the program that listens on this one',
  EADDRNOTAVAIL: 'choose an address of this host',
  // What RestrictAddressFamilies= and SystemCallFilter= of systemd make of a socket that they do not allow.
  EAFNOSUPPORT: OF_THE_UNIT,
  EPERM: OF_THE_UNIT,
};

/** One line: why metrics are not served on TCP, and what to do. */
export function metricsFailure(error: unknown): { text: string; remedy: NextStep } {
  const reason = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return {
    text: `metrics cannot be served on TCP: ${reason}`,
    remedy: REMEDIES[code] ?? 'give --metrics an address of this host',
  };
}

/** `address` of what listens has the port that was given for 0. Rejects when it cannot listen. */
export async function startMetricsServer(
  where: MetricsAddress,
  { fleet, history }: { fleet: Pick<Fleet, 'metrics' | 'live'>; history: History },
  events: EventSource,
  files: PageFiles,
  onRefused: (refusal: Refusal) => void = () => undefined,
): Promise<{ address: MetricsAddress; close: () => Promise<void> }> {
  const feed = new LiveFeed(() => fleet.live(), history);
  try {
    const { server, close } = await startHttpServer(
      where,
      async (request, response): Promise<Answer> => {
        for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
        const path = request.url?.split('?')[0] ?? '';
        if (request.method !== 'GET' && request.method !== 'HEAD') {
          throw new Problem(405, refusal('nothing can be changed here', 'use balloonctl'), {
            allow: 'GET, HEAD',
          });
        }
        const file = Object.hasOwn(files, path) ? files[path] : undefined;
        if (file !== undefined) return file;
        if (path === '/metrics') return { text: await fleet.metrics(), type: METRICS_TYPE };
        if (path === '/healthz') return { document: { status: 'ok' } };
        if (path === '/history') return { document: historyOf(history, fleet.live().time, request.url) };
        if (path === '/live') return { stream: (to) => feed.stream(to), ends: false };
        if (path === '/events') {
          const last = request.headers['last-event-id'];
          const since = typeof last === 'string' ? lastEventId(last) : { seq: 0, epoch: null };
          return {
            stream: (to) => streamEvents(to, events, { since, filter: {}, follow: true }),
            ends: false,
          };
        }
        throw new Problem(404, refusal('no such path', 'see / or /metrics'));
      },
      onRefused,
    );
    const { address: host, port } = server.address() as AddressInfo;
    return {
      address: { host, port },
      close: () => {
        feed.close();
        return close();
      },
    };
  } catch (error) {
    feed.close();
    throw error;
  }
}

/** Of the host, or of the VM that the query names. */
function historyOf(history: History, now: number, url = ''): LiveHistory {
  const vm = new URLSearchParams(url.split('?')[1] ?? '').get('vm');
  if (vm === null) return history.read(now, (name) => /^(host|band) /.test(name));
  const own = new Set(VM_SERIES.map((series) => vmSeries(series, vm)));
  return history.read(now, (name) => own.has(name));
}
