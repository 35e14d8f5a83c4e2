// The client of QMP, with peers of any kind at the other end.
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { VmmError } from '../../protocol/adopted.js';
import { connectQmp, type QmpClient } from '../../src/qmp/client.js';
import { socketFolder, soon } from '../support/qemu-model.js';

const HELLO =
  '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 10}}, "capabilities": ["oob"]}}\r\n';

interface Peer {
  readonly client: QmpClient;
  readonly events: string[];
  /** What the connection ended with; undefined: it did not. */
  readonly ends: (VmmError | null)[];
  readonly sent: string[];
  readonly write: (text: string) => void;
  readonly close: () => void;
}

async function peer(t: Test, answerMs?: number): Promise<Peer> {
  const path = join(socketFolder(t), 'qmp');
  const sent: string[] = [];
  const sockets: Socket[] = [];
  const server = createServer((one) => {
    sockets.push(one);
    one.on('error', () => undefined);
    one.setEncoding('utf8').on('data', (text: string) => sent.push(...text.split('\n').filter(Boolean)));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const client = connectQmp(path, answerMs);
  t.teardown(async () => {
    client.close();
    sockets[0]?.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
  const events: string[] = [];
  const ends: (VmmError | null)[] = [];
  client.listen({
    event: (name) => events.push(name),
    throttled: () => events.push('throttled'),
    closed: (error) => ends.push(error),
  });
  await soon(() => sockets.length > 0, 'the client connects');
  return {
    client,
    events,
    ends,
    sent,
    write: (text) => void sockets[0]?.write(text),
    close: () => void sockets[0]?.destroy(),
  };
}

/** Greeted, and let into the mode for commands. */
async function ready(t: Test, answerMs?: number): Promise<Peer> {
  const one = await peer(t, answerMs);
  const greeted = one.client.greeted();
  one.write(HELLO);
  await soon(() => one.sent.length === 1, 'it asks for no capability');
  t.match(JSON.parse(one.sent[0] ?? ''), { execute: 'qmp_capabilities', arguments: {}, id: 1 });
  one.write('{"return": {}, "id": 1}\r\n');
  await greeted;
  return one;
}

void t.test('answers find their commands in any order, and refusals are in the words of QEMU', async (t) => {
  const { client, write, sent, events } = await ready(t);
  t.equal(client.version, '10.2.0');
  t.equal(client.pid, process.pid);
  const [one, two] = [client.execute('one'), client.execute('two', { a: 1 })];
  await soon(() => sent.length === 3, 'both were sent');
  t.match(JSON.parse(sent[2] ?? ''), { execute: 'two', arguments: { a: 1 }, id: 3 });
  write('{"event": "STOP"}\n{"id": 3, "return": 7}{"id": 99, "return": 8}\r\n');
  t.equal(await two, 7);
  write('{"id": 2, "error": {"class": "CommandNotFound", "desc": "no such command"}}\r\n');
  await t.rejects(one, { name: 'VmmError', message: 'no such command', errorClass: 'CommandNotFound' });
  t.same(events, ['STOP']);
});

void t.test('a command that gets no answer is given up, and its answer then has no effect', async (t) => {
  const { client, write, sent, ends } = await ready(t, 50);
  await t.rejects(client.execute('query-balloon'), {
    message: /does not answer query-balloon/,
    errorClass: null,
  });
  write('{"id": 2, "return": "late"}\r\n');
  const next = client.execute('query-name');
  await soon(() => sent.length === 3, 'the next one was sent');
  write('{"id": 3, "return": "in time"}\r\n');
  t.equal(await next, 'in time');
  t.same(ends, []);
});

void t.test('a peer owes so many answers at most', async (t) => {
  const { client, ends } = await ready(t, 200);
  const asked = Array.from({ length: 40 }, () =>
    client.execute('x').catch((error: unknown) => String(error)),
  );
  const refused = (await Promise.all(asked)).filter((said) => said === 'VmmError: QEMU owes 32 answers');
  t.equal(refused.length, 8);
  t.same(ends, []);
});

const RUBBISH: Readonly<Record<string, string>> = {
  'another protocol': 'HTTP/1.1 400 Bad Request\r\n',
  'JSON that is no object': '[]\r\n',
  'an object that is no JSON': '{QMP}\r\n',
  'a message in place of a greeting': '{"return": {}}\r\n',
  'a line without an end': `{"QMP": "${'x'.repeat(2 * 2 ** 20)}`,
  'an object without a bottom': `{"QMP": ${'['.repeat(70)}`,
};

for (const [name, text] of Object.entries(RUBBISH)) {
  void t.test(`${name} ends the connection at once`, async (t) => {
    const { client, write, ends } = await peer(t);
    const greeted = client.greeted();
    write(text);
    await t.rejects(greeted, { name: 'VmmError' });
    t.equal(ends.length, 1);
    t.type(ends[0], VmmError);
    await t.rejects(client.execute('query-name'), { message: 'the connection ended' });
  });
}

void t.test('a peer that closes, also in the midst of a message, leaves nobody waiting', async (t) => {
  const { client, write, close, ends } = await ready(t);
  const waits = client.execute('query-name');
  write('{"return": {"na');
  close();
  await t.rejects(waits, { message: 'the connection ended' });
  t.same(ends, [null]);
  const early = await peer(t);
  const greeted = early.client.greeted();
  early.close();
  await t.rejects(greeted, { name: 'VmmError' });
  t.same(early.ends, [null]);
});

void t.test('a client that waits in line sends nothing', async (t) => {
  const { client, sent, ends } = await peer(t);
  let isGreeted = false;
  client.greeted().then(
    () => (isGreeted = true),
    () => undefined,
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.same([isGreeted, sent, ends], [false, [], []]);
});

void t.test('a peer that sends without end waits for its turns, and loses no answer', async (t) => {
  const { client, write, sent, events, ends } = await ready(t);
  const flood =
    `{"event": "BALLOON_CHANGE", "data": {"actual": 1, "more": "${'x'.repeat(1000)}"}}\r\n`.repeat(1000);
  for (let n = 0; n < 40 && !client.throttled; n++) {
    write(flood);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await soon(() => events.includes('throttled'), 'it waits');
  const asked = client.execute('query-name');
  await soon(() => sent.length === 2, 'the command goes out all the same');
  write('{"id": 2, "return": {"name": "web"}}\r\n');
  t.same(await asked, { name: 'web' });
  t.same(ends, []);
});
