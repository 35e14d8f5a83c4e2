import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import t, { type Test } from 'tap';
import type { LiveHistory, LiveTick } from '../../protocol/control/live.js';
import { metricsFailure, startMetricsServer } from '../../src/control/metrics-server.js';
import { MemoryEvents, MemoryFleet, MemoryHistory, vmView } from '../support/fleet.js';
import { parseMetrics } from '../support/metric-samples.js';
import { NEXT_STEP } from '../support/next-step.js';

const HOSTILE = '<script>alert(1)</script>\u2028"\n\n data: x';
const FILES = { '/': { type: 'text/html; charset=utf-8', text: '<!doctype html>' } };

interface Fixture {
  port: number;
  fleet: MemoryFleet;
  events: MemoryEvents;
  close: () => Promise<void>;
}

async function serve(t: Test): Promise<Fixture> {
  const fleet = new MemoryFleet(vmView(HOSTILE));
  const events = new MemoryEvents();
  const history = new MemoryHistory();
  const server = await startMetricsServer({ host: '127.0.0.1', port: 0 }, { fleet, history }, events, FILES);
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => (closing ??= server.close());
  t.teardown(close);
  return { port: server.address.port, fleet, events, close };
}

const nobody = { fleet: new MemoryFleet(), history: new MemoryHistory() };

async function open(port: number, path: string, method = 'GET'): Promise<IncomingMessage> {
  const request = httpRequest({ host: '127.0.0.1', port, path, method, agent: false });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  response.setEncoding('utf8');
  return response;
}

async function body(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return text;
}

/** The data of a stream's events, one after the other. */
async function* data(response: IncomingMessage): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of response) {
    const events = (rest + String(chunk)).split('\n\n');
    rest = events.pop() ?? '';
    for (const event of events) {
      const line = event.split('\n').find((each) => each.startsWith('data: '));
      if (line !== undefined) yield line.slice('data: '.length);
    }
  }
}

function words(error: unknown): string {
  const { text, remedy } = metricsFailure(error);
  return `${text}: ${remedy}`;
}

void t.test('everything is answered with headers that let nothing else in', async (t) => {
  const { port } = await serve(t);
  for (const path of ['/', '/metrics', '/healthz', '/none']) {
    const { headers } = await open(port, path);
    const policy = headers['content-security-policy'];
    t.match(policy, /^default-src 'none'; script-src 'self';/, path);
    t.notMatch(policy, /unsafe|\*|data:|http/);
    t.equal(headers['x-content-type-options'], 'nosniff');
    t.equal(headers['access-control-allow-origin'], undefined);
  }
});

void t.test('it is read-only, and has nothing of the control API', async (t) => {
  const { port, fleet } = await serve(t);
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
    for (const path of ['/', '/metrics', '/v1/vms/a', '/v1/vms/a/inhibit', '/live']) {
      const response = await open(port, path, method);
      t.equal(response.statusCode, 405, `${method} ${path}`);
      t.match(await body(response), /use balloonctl/);
    }
  }
  for (const path of ['/v1/vms', '/v1/events', '/openapi.json', '/../package.json', '/__proto__', '//']) {
    t.equal((await open(port, path)).statusCode, 404, path);
  }
  t.same(fleet.list(), [vmView(HOSTILE)]);
});

void t.test('metrics, with or without a query', async (t) => {
  const { port } = await serve(t);
  const response = await open(port, '/metrics?name[]=up');
  t.equal(response.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
  t.ok(parseMetrics(await body(response)).some(({ name }) => name === 'balloond_build_info'));
  t.equal((await open(port, '/', 'HEAD')).statusCode, 200);
});

void t.test('a page that comes later is told what was before, and names stay data', async (t) => {
  const { port, fleet, events } = await serve(t);
  const first = data(await open(port, '/live'));
  const told = JSON.parse((await first.next()).value as string) as LiveTick;
  t.same(told.vms, fleet.live().vms);
  t.equal(told.vms[0]?.name, HOSTILE);
  const second = data(await open(port, '/live'));
  t.same(JSON.parse((await second.next()).value as string), told, 'the same tick');
  const next = JSON.parse((await second.next()).value as string) as LiveTick;
  t.ok(next.time >= told.time);
  t.same(JSON.parse((await first.next()).value as string), next, 'which both get');

  events.emit('vm-ready', HOSTILE, HOSTILE);
  const stream = data(await open(port, '/events'));
  t.match(JSON.parse((await stream.next()).value as string), { message: HOSTILE, vm: HOSTILE });
});

void t.test('the last hour is told of the host, or of one VM', async (t) => {
  const { port, fleet } = await serve(t);
  const stream = data(await open(port, '/live'));
  const { time } = JSON.parse((await stream.next()).value as string) as LiveTick;
  const ask = async (path: string): Promise<LiveHistory> =>
    JSON.parse(await body(await open(port, path))) as LiveHistory;
  const host = await ask('/history');
  t.same(host.times, [time]);
  t.same(Object.keys(host.series).sort(), [
    'band ',
    'host available',
    'host pressure',
    'host reserve',
    'host total',
  ]);
  const vm = await ask(`/history?vm=${encodeURIComponent(HOSTILE)}`);
  const [own] = fleet.live().vms;
  t.same(vm, {
    times: [time],
    series: {
      [`target ${HOSTILE}`]: [own?.targetBytes],
      [`actual ${HOSTILE}`]: [own?.actualBytes],
      [`allocated ${HOSTILE}`]: [own?.allocatedBytes],
      [`available ${HOSTILE}`]: [own?.availableBytes],
    },
  });
  t.same((await ask('/history?vm=nobody')).series, {});
});

void t.test('closing ends the streams, and nothing is left that looks', async (t) => {
  const { port, close, events } = await serve(t);
  const streams = await Promise.all([open(port, '/live'), open(port, '/events')]);
  const ended = streams.map((stream) => body(stream));
  t.equal(events.subscribers, 1);
  await close();
  await Promise.all(ended);
  t.equal(events.subscribers, 0);
});

void t.test('an address that cannot be had rejects, and leaves nothing', async (t) => {
  const { port } = await serve(t);
  await t.rejects(startMetricsServer({ host: '127.0.0.1', port }, nobody, new MemoryEvents(), FILES), {
    code: 'EADDRINUSE',
  });
});

void t.test('why it cannot listen comes with what to do', async (t) => {
  const { port } = await serve(t);
  const listen = (host: string, at: number): Promise<unknown> =>
    startMetricsServer({ host, port: at }, nobody, new MemoryEvents(), FILES).catch(
      (error: unknown) => error,
    );
  t.match(words(await listen('127.0.0.1', port)), /EADDRINUSE.*: choose another port/);
  t.match(words(await listen('192.0.2.1', 0)), /EADDRNOTAVAIL.*: choose an address/);
  for (const code of ['EAFNOSUPPORT', 'EPERM', 'EACCES', 'EWHATEVER']) {
    const said = words(Object.assign(new Error(`listen ${code}`), { code }));
    t.match(said, NEXT_STEP);
    t.equal(/drop-in of METRICS ON TCP/.test(said), code === 'EAFNOSUPPORT' || code === 'EPERM', code);
  }
});
