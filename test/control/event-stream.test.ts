import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { connect } from 'node:net';
import t, { type Test } from 'tap';
import { Check } from 'typebox/schema';
import { SCHEMAS, type DaemonEvent } from '../../protocol/control/schema.js';
import { BACKLOG_LIMIT_BYTES } from '../../src/control/event-stream.js';
import { call, serveFleet } from '../support/fleet.js';

/** Decodes a complete stream and checks the framing of each event on the way. */
function decode(t: Test, text: string): DaemonEvent[] {
  const blocks = text.split('\n\n');
  t.equal(blocks.pop(), '', 'ends after a whole event');
  const places = blocks.filter((block) => /^id: [0-9a-f]{8}-\d+$/.test(block));
  t.equal(places.length, 1, 'it says once where to go on from');
  const events = blocks.filter((block) => !places.includes(block) && !block.startsWith(': '));
  return events.map((block) => {
    const lines = block.split('\n');
    t.equal(lines.length, 3, block);
    const [id, name, data = ''] = lines;
    const event = JSON.parse(data.replace('data: ', '')) as DaemonEvent;
    t.ok(Check(SCHEMAS.Event, event), data);
    t.equal(id, `id: ${event.id}`);
    t.equal(name, `event: ${event.event}`);
    return event;
  });
}

/** Opens a stream and resolves when its headers are there. */
async function open(t: Test, socketPath: string, path: string): Promise<IncomingMessage> {
  const sent = request({ socketPath, path, agent: false }).end();
  t.teardown(() => sent.destroy());
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  t.equal(response.headers['content-type'], 'text/event-stream');
  return response.setEncoding('utf8');
}

void t.test('replay', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  const first = events.emit('daemon-started', 'hello');
  const second = events.emit('vm-connected', 'two\nlines', 'web1');
  const read = async (query: string) =>
    decode(t, (await call(socketPath, 'GET', `/v1/events?follow=false${query}`)).text);
  t.strictSame(await read('&since=0'), [first, second]);
  t.strictSame(await read('&since=1'), [second]);
  t.strictSame(await read('&since=2'), []);
  t.strictSame(await read(''), [], 'without since nothing is replayed');
});

void t.test('follow: replay and news without a gap; the end of the server ends the stream', async (t) => {
  const { socketPath, events, close } = await serveFleet(t);
  const first = events.emit('daemon-started', 'hello');
  const all = await open(t, socketPath, '/v1/events?since=0');
  const news = await open(t, socketPath, '/v1/events');
  const second = events.emit('vm-connected', 'news', 'web1');
  const closed = close();
  events.emit('vm-disconnected', 'too late for those who follow', 'web1');
  const text = async (stream: IncomingMessage) => {
    let result = '';
    for await (const chunk of stream as AsyncIterable<string>) result += chunk;
    return result;
  };
  t.strictSame(decode(t, await text(all)), [first, second]);
  t.strictSame(decode(t, await text(news)), [second]);
  await closed;
  t.equal(events.subscribers, 0);
});

void t.test('a client that leaves is unsubscribed', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  const stream = await open(t, socketPath, '/v1/events');
  t.equal(events.subscribers, 1);
  stream.destroy();
  while (events.subscribers > 0) await new Promise(setImmediate);
  events.emit('daemon-stopping', 'nobody listens');
});

void t.test('a client that does not read is dropped, one that reads is served on', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  const reader = await open(t, socketPath, '/v1/events');
  let read = '';
  reader.on('data', (chunk: string) => (read += chunk));

  const sleeper = connect(socketPath, () => sleeper.write('GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n'));
  t.teardown(() => sleeper.destroy());
  sleeper.pause();
  while (events.subscribers < 2) await new Promise(setImmediate);

  const filler = 'x'.repeat(16 * 1024);
  // More than the socket's own buffer and the backlog together hold.
  const enough = (BACKLOG_LIMIT_BYTES + 1024 * 1024) / filler.length;
  let sent = 0;
  for (; events.subscribers === 2 && sent < enough; sent++) {
    events.emit('stats-received', filler, 'web1');
    await new Promise(setImmediate);
  }
  t.equal(events.subscribers, 1, `dropped after ${sent} events`);
  t.ok(sent * filler.length > BACKLOG_LIMIT_BYTES, 'and not before its backlog was full');

  const last = events.emit('daemon-stopping', 'the last');
  while (!read.includes(`id: ${last.id}\n`)) await new Promise(setImmediate);
  t.equal(decode(t, read).length, sent + 1, 'the reader has them all');
});

void t.test('a burst in one turn drops the client without harm', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  const stream = await open(t, socketPath, '/v1/events');
  stream.on('error', () => undefined);
  const closed = new Promise((resolve) => stream.on('close', resolve));
  stream.pause();
  const filler = 'x'.repeat(16 * 1024);
  for (let n = 0; n < 200; n++) events.emit('stats-received', filler);
  stream.resume();
  await closed;
  t.equal(events.subscribers, 0);
  t.equal((await call(socketPath, 'GET', '/healthz')).status, 200);
});

void t.test('a replay may be larger than the backlog', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  const filler = 'x'.repeat(16 * 1024);
  const count = (4 * BACKLOG_LIMIT_BYTES) / filler.length;
  for (let n = 0; n < count; n++) events.emit('stats-received', filler);
  const stream = await open(t, socketPath, '/v1/events?since=0');
  let read = '';
  const last = events.emit('daemon-stopping', 'the last');
  for await (const chunk of stream as AsyncIterable<string>) {
    read += chunk;
    if (read.includes(`id: ${last.id}\n`) && read.endsWith('\n\n')) break;
  }
  t.equal(decode(t, read).length, count + 1);
});
