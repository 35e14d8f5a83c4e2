import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { ControlClient, ControlError, UnreachableError } from '../../src/control/client.js';
import { closeFd } from '../../src/os/fd.js';
import { listenUnix } from '../../src/os/socket.js';
import { GIB, serveFleet, temporaryFolder, vmView } from '../support/fleet.js';

void t.test('a daemon that accepts but never answers is given up', async (t) => {
  const path = join(temporaryFolder(t), 'silent.sock');
  const server = createServer((socket) => socket.resume());
  t.teardown(() => new Promise((resolve) => server.close(resolve)));
  server.listen(path);
  await once(server, 'listening');
  const client = new ControlClient(path, { replyTimeoutMs: 50 });
  await t.rejects(client.list(), UnreachableError);
  await t.rejects(client.list(), { message: /does not answer/ });
});

void t.test('a request waits for a daemon that is started again, and tells of it', async (t) => {
  const path = join(temporaryFolder(t), 'control.sock');
  closeFd(listenUnix(path));
  await t.rejects(new ControlClient(path, { restartMs: 0 }).list(), { message: /has no daemon behind it/ });
  const told: string[] = [];
  let heard = (): void => undefined;
  const away = new Promise<void>((resolve) => (heard = resolve));
  const onAway = (message: string): Promise<boolean> => {
    told.push(message);
    heard();
    return Promise.resolve(true);
  };
  const endless = { restartMs: Infinity, onAway: () => Promise.resolve(false) };
  await t.rejects(new ControlClient(path, endless).list(), { message: /has no daemon behind it/ });
  const vms = new ControlClient(path, { onAway }).list();
  await away;
  t.match(told, [/has no daemon behind it/]);
  const next = createHttpServer((_, response) => response.end('[]'));
  t.teardown(() => next.close());
  rmSync(path);
  next.listen(path);
  t.same(await vms, []);
});

void t.test('refusals carry the status and the detail', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const client = new ControlClient(socketPath);
  await t.rejects(client.show('nope'), { name: 'ControlError', status: 404, message: /"nope"/ });
  fleet.refusal = 'not now';
  await t.rejects(client.setTarget('web1', { balloonBytes: GIB }), ControlError);
  await t.rejects(client.inhibit('web1', undefined), { status: 409, message: 'not now' });
  fleet.refusal = null;
  t.strictSame(await client.list(), [vmView('web1')]);
});

void t.test('a reader of events may stop at any one', async (t) => {
  const { socketPath, events } = await serveFleet(t);
  events.emit('daemon-started', 'one');
  events.emit('vm-connected', 'two', 'web1');
  for await (const { event } of new ControlClient(socketPath).stream({ since: '0', follow: true })) {
    t.equal(event?.message, 'one');
    break;
  }
  while (events.subscribers > 0) await new Promise(setImmediate);
});
