// However many clients stay, an operator gets an answer, and a client that does not is told why.
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { ProblemDocument } from '../../protocol/control/schema.js';
import { ControlClient } from '../../src/control/client.js';
import type { Refusal } from '../../src/control/http.js';
import { startMetricsServer } from '../../src/control/metrics-server.js';
import { CONNECTIONS_MAX, STREAMS_MAX, TURNED_AWAY_MAX } from '../../src/control/places.js';
import { call, MemoryEvents, MemoryFleet, MemoryHistory, serveFleet, vmView } from '../support/fleet.js';

type Where = { socketPath: string } | { host: string; port: number };

async function get(where: Where, path: string): Promise<IncomingMessage> {
  const sent = httpRequest({ ...where, path, agent: false }).end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return response.setEncoding('utf8');
}

async function text(response: IncomingMessage): Promise<string> {
  let all = '';
  for await (const chunk of response as AsyncIterable<string>) all += chunk;
  return all;
}

/** Opens streams until one is refused; returns those, and the refusal. */
async function fill(
  t: Test,
  where: Where,
  path: string,
): Promise<{ open: IncomingMessage[]; refused: IncomingMessage }> {
  const open: IncomingMessage[] = [];
  t.teardown(() => open.forEach((stream) => stream.destroy()));
  for (;;) {
    const stream = await get(where, path);
    if (stream.statusCode !== 200) return { open, refused: stream };
    open.push(stream.resume());
  }
}

async function detail(t: Test, response: IncomingMessage): Promise<string> {
  t.equal(response.statusCode, 503);
  t.equal(response.headers['content-type'], 'application/problem+json');
  t.match(response.headers['retry-after'], /^\d+$/);
  return (JSON.parse(await text(response)) as ProblemDocument).detail;
}

void t.test('streams leave places for requests', async (t) => {
  const { socketPath, refusals, events } = await serveFleet(t);
  const where = { socketPath };
  const { open, refused } = await fill(t, where, '/v1/events');
  t.equal(open.length, STREAMS_MAX);
  t.match(await detail(t, refused), /all 48 places for streams are taken: end a client/);
  t.match(refusals, [{ status: 503, url: '/v1/events' }]);
  const client = new ControlClient(socketPath);
  for (let n = 0; n < 100; n++) {
    t.equal((await client.list()).length, 1);
    t.equal((await get(where, '/v1/events')).resume().statusCode, 503);
  }
  t.equal(refusals.length, 1, 'said once');
  t.equal((await client.events()).length, 0, 'what ends by itself needs no place');

  open.pop()?.destroy();
  while (events.subscribers === STREAMS_MAX) await sleep(5);
  t.equal((await fill(t, where, '/v1/events')).open.length, 1, 'a place that is left is free again');
});

/** Connections that ask for nothing, one after the other. */
async function idle(t: Test, socketPath: string, count: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  t.teardown(() => sockets.forEach((socket) => socket.destroy()));
  for (let n = 0; n < count; n++) {
    const socket = connect(socketPath);
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    sockets.push(socket);
  }
  return sockets;
}

void t.test('who comes when all connections are in use is told so', async (t) => {
  const { socketPath, refusals } = await serveFleet(t);
  const open = await idle(t, socketPath, CONNECTIONS_MAX);
  const busy = await call(socketPath, 'GET', '/v1/vms');
  t.match(busy, { status: 503, headers: { connection: 'close', 'retry-after': '1' } });
  t.match(busy.document, { detail: /all 64 connections are in use: try again/ });
  t.match(await call(socketPath, 'PATCH', '/v1/vms/web1', '{"balloonBytes":1}'), { status: 503 });
  t.equal(refusals.length, 1, 'said once');

  const [silent] = await idle(t, socketPath, 1);
  let told = '';
  silent?.setEncoding('utf8').on('data', (chunk: string) => (told += chunk));
  await once(silent ?? open[0] ?? connect(socketPath), 'close');
  t.match(told, /^HTTP\/1\.1 503 .*retry-after/s, 'also a client that asks for nothing');

  for (const socket of open) socket.destroy();
  while ((await call(socketPath, 'GET', '/v1/vms')).status === 503) await sleep(5);
  t.equal(refusals.length, 1);
});

void t.test('what is beyond even that is closed, and costs the daemon no more', async (t) => {
  const { socketPath, refusals } = await serveFleet(t);
  const sockets = await idle(t, socketPath, CONNECTIONS_MAX + TURNED_AWAY_MAX + 40);
  await new Promise(setImmediate);
  const client = new ControlClient(socketPath);
  await t.rejects(client.list(), /was closed by the daemon: try again; .*control-busy|all 64 connections/);
  t.match(refusals, [{ status: 503 }], 'of which the log has a line');
  for (const socket of sockets) socket.destroy();
  for (;;) {
    try {
      t.equal((await client.list()).length, 1);
      break;
    } catch {
      await sleep(5);
    }
  }
});

void t.test('the metrics address: pages, and the metrics all the same', async (t) => {
  const refusals: Refusal[] = [];
  const server = await startMetricsServer(
    { host: '127.0.0.1', port: 0 },
    { fleet: new MemoryFleet(vmView('web1')), history: new MemoryHistory() },
    new MemoryEvents(),
    {},
    (refusal) => refusals.push(refusal),
  );
  t.teardown(() => server.close());
  const { host, port } = server.address;
  const live = await fill(t, { host, port }, '/live');
  t.equal(live.open.length, STREAMS_MAX);
  t.match(await detail(t, live.refused), /shows the page/);
  t.equal((await get({ host, port }, '/events')).statusCode, 503, 'both are streams');
  t.equal((await get({ host, port }, '/metrics')).resume().statusCode, 200);
  t.equal(refusals.length, 1);
});
