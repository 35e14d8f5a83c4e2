import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Check } from 'typebox/schema';
import { openApiDocument } from '../../protocol/control/openapi.js';
import { OPERATIONS, type Operation } from '../../protocol/control/operations.js';
import { SCHEMAS, type ProblemDocument, type VmView } from '../../protocol/control/schema.js';
import { BODY_LIMIT_BYTES } from '../../src/control/body.js';
import { startControlServer } from '../../src/control/server.js';
import { NEXT_STEP } from '../support/next-step.js';
import { closeFd } from '../../src/os/fd.js';
import { listenUnix } from '../../src/os/socket.js';
import {
  call,
  GIB,
  MemoryDaemon,
  MemoryEvents,
  MemoryFleet,
  serveFleet,
  temporaryFolder,
  VERSION,
  vmView,
  type Answer,
} from '../support/fleet.js';

/** Asserts a well-formed problem and returns its detail. */
function detailOf(t: Test, answer: Answer, status: number): string {
  t.equal(answer.status, status, answer.text);
  t.equal(answer.headers['content-type'], 'application/problem+json');
  t.ok(Check(SCHEMAS.Problem, answer.document), answer.text);
  const problem = answer.document as ProblemDocument;
  t.equal(problem.status, status);
  return problem.detail;
}

/** A VM with an order, which can be taken back. */
function withOrder(): MemoryFleet {
  const undo = 'balloonctl policy resume web1';
  const order = { order: 'policy', says: 'the policy leaves the VM alone', by: 'operator', undo } as const;
  return new MemoryFleet(vmView('web1', { orders: [{ ...order, since: null }] }));
}

void t.test('each operation answers with its schema', async (t) => {
  const { socketPath } = await serveFleet(t, withOrder());
  const bodies: Record<string, string> = {
    setTarget: `{"memoryBytes":${GIB}}`,
    inhibit: '{"reason":"test"}',
    changeAdopted: '{"path":"/run/web1.qmp","adopted":true}',
    changePolicy: '{"paused":true}',
    changeDaemon: '{"logLevel":"debug"}',
  };
  for (const [id, operation] of Object.entries<Operation>(OPERATIONS)) {
    if (operation.streams) continue;
    const path = operation.path.replace('{vm}', 'web1');
    const answer = await call(socketPath, operation.method, path, bodies[id]);
    t.equal(answer.status, 200, `${id}: ${answer.text}`);
    t.equal(answer.headers['content-type'], operation.text ?? 'application/json');
    const document = operation.text === undefined ? answer.document : answer.text;
    t.ok(Check(SCHEMAS[operation.reply], document), `${id}: ${answer.text}`);
  }
});

void t.test('the server and the OpenAPI document know the same paths and methods', async (t) => {
  const { socketPath } = await serveFleet(t, withOrder());
  const served = (await call(socketPath, 'GET', '/openapi.json')).document;
  t.strictSame(served, JSON.parse(JSON.stringify(openApiDocument(VERSION))));
  const { paths } = served as { paths: Record<string, Record<string, unknown>> };
  for (const [template, item] of Object.entries(paths)) {
    const path = `${template.replace('{vm}', 'web1')}?${template === '/v1/events' ? 'follow=false' : ''}`;
    const described = Object.keys(item).map((method) => method.toUpperCase());
    const allowed = [...described, 'OPTIONS', ...(described.includes('GET') ? ['HEAD'] : [])].sort();
    const options = await call(socketPath, 'OPTIONS', path);
    t.equal(options.status, 204);
    t.strictSame(options.headers.allow?.split(', ').sort(), allowed);
    for (const method of ['GET', 'PUT', 'PATCH', 'POST', 'DELETE']) {
      const answer = await call(socketPath, method, path);
      if (described.includes(method)) {
        t.ok(answer.status !== 404 && answer.status !== 405, `${method} ${path} is served`);
      } else {
        detailOf(t, answer, 405);
        t.strictSame(answer.headers.allow?.split(', ').sort(), allowed, `Allow of ${path}`);
      }
    }
  }
});

void t.test('targets', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const memory = await call(socketPath, 'PATCH', '/v1/vms/web1', `{"memoryBytes":${GIB}}`);
  t.equal((memory.document as VmView).balloon.targetBytes, 3 * GIB);
  const balloon = await call(socketPath, 'PATCH', '/v1/vms/web1', `{"balloonBytes":${GIB}}`);
  t.equal((balloon.document as VmView).balloon.targetBytes, GIB);

  fleet.refusal = 'wait for the driver';
  const refused = await call(socketPath, 'PATCH', '/v1/vms/web1', '{"balloonBytes":0}');
  t.equal(detailOf(t, refused, 409), 'wait for the driver');
  t.equal(fleet.list()[0]?.balloon.targetBytes, GIB, 'unchanged');
});

void t.test('a change goes by If-Match, and the tag is that of the orders', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const path = '/v1/vms/web1';
  const tagOf = async (): Promise<string> => (await call(socketPath, 'GET', path)).headers.etag ?? '';
  const patch = (tag: string, bytes: number): Promise<Answer> =>
    call(socketPath, 'PATCH', path, `{"balloonBytes":${bytes}}`, { 'if-match': tag });
  const first = await tagOf();
  t.match(first, /^"[0-9a-f]{16}"$/);
  fleet.inflate('web1', GIB / 2);
  t.equal(await tagOf(), first, 'the figures of the guest do not change it');
  const changed = await patch(first, GIB);
  t.equal(changed.status, 200);
  t.equal(changed.headers.etag, await tagOf(), 'the answer has the new one');
  const late = await patch(first, 2 * GIB);
  t.match(detailOf(t, late, 412), /the orders for VM "web1" are not those of If-Match: ask for the VM again/);
  t.equal(late.headers.etag, await tagOf());
  t.equal(fleet.list()[0]?.balloon.targetBytes, GIB, 'the order before stands');
  for (const none of ['"0"', 'W/' + (await tagOf()), 'x', ''])
    t.equal((await patch(none, 0)).status, 412, none);
  t.equal((await patch(`"0", ${await tagOf()}`, 2 * GIB)).status, 200, 'one of several');
  t.equal((await patch('*', 0)).status, 200, 'any');
});

void t.test('a dry run answers with the VM as it would be', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const path = '/v1/vms/web1?dry-run=true';
  const tried = await call(socketPath, 'PATCH', path, `{"memoryBytes":${GIB}}`);
  t.equal((tried.document as VmView).balloon.targetBytes, 3 * GIB);
  t.ok(Check(SCHEMAS.Vm, tried.document));
  t.match(detailOf(t, await call(socketPath, 'PATCH', path, '{"limits":{"high":1}}'), 400), /is for targets/);
  t.strictSame(fleet.list(), [vmView('web1')]);
});

void t.test('bad bodies change nothing', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const bytes = 'write bytes as a whole number of 0 or more';
  const word = `${bytes}, or max, follow, restore`;
  const change: Record<string, string> = {
    '': 'the request body is not JSON: send {"memoryBytes": N}',
    '{': 'the request body is not JSON',
    null: 'the body is no JSON object: send {"memoryBytes": N}',
    '[]': 'the body is no JSON object',
    '{}': 'the body has no field: send {"memoryBytes": N}',
    '{"memoryBytes":1,"balloonBytes":1}': 'memoryBytes and balloonBytes exclude each other: send',
    '{"memoryBytes":-1}': `memoryBytes: ${bytes}`,
    '{"memoryBytes":0.5}': `memoryBytes: ${bytes}`,
    '{"memoryBytes":"1G"}': `memoryBytes: ${bytes}`,
    '{"balloonBytes":1e300}': `balloonBytes: ${bytes}`,
    '{"balloonBytes":1,"x":1}':
      '"x" is no field: give memoryBytes, force, balloonBytes, cacheLimitBytes, limits',
    '{"balloonBytes":1,"force":1}': 'force: write true or false',
    '{"force":true}': 'memoryBytes is missing',
    '{"baloonBytes":1}': '"baloonBytes" is no field: did you mean balloonBytes?',
    '{"__proto__":{"balloonBytes":1}}': '"__proto__" is no field',
    '{"limits":{}}': 'limits has no field: give high, max',
    '{"limits":[]}': 'limits: write an object',
    '{"limits":{"high":"1G"}}': `limits.high: ${word}`,
    '{"limits":{"max":null}}': `limits.max: ${word}`,
    '{"limits":{"hihg":1}}': '"limits.hihg" is no field: did you mean high?',
  };
  const inhibit: Record<string, string> = {
    '{': 'the request body is not JSON: send nothing or {"reason": "..."}',
    '[]': 'the body is no JSON object',
    '{"reason":""}': 'reason: write one line of 1 to 200 characters',
    '{"reason":"a\\nb"}': 'reason: write one line of 1 to 200 characters',
    '{"reason":7}': 'reason: write one line of 1 to 200 characters',
    '{"why":"x"}': '"why" is no field: give reason',
  };
  const policy: Record<string, string> = {
    '{}': 'the body has no field: send {"paused": true}',
    '{"vm":"web1"}': 'paused is missing: send {"paused": true}',
    '{"paused":1}': 'paused: write true or false',
    '{"paused":true,"vm":""}': 'vm: write a string that is not empty',
    '{"pause":true}': '"pause" is no field: did you mean paused?',
    '{"mode":"on"}': 'mode: write ',
    '{"mode":"auto","paused":true}': 'mode and paused exclude each other: send',
  };
  for (const [method, path, cases] of [
    ['PATCH', '/v1/vms/web1', change],
    ['PUT', '/v1/vms/web1/inhibit', inhibit],
    ['PATCH', '/v1/policy', policy],
  ] as const) {
    for (const [body, said] of Object.entries(cases)) {
      const detail = detailOf(t, await call(socketPath, method, path, body), 400);
      t.ok(detail.startsWith(said), `${body}: ${detail}`);
      t.match(detail, NEXT_STEP);
    }
  }
  const bad = await call(
    socketPath,
    'PUT',
    '/v1/vms/web1/inhibit',
    Buffer.from('{"reason":"\xff"}', 'latin1'),
  );
  t.match(detailOf(t, bad, 400), /UTF-8/);
  t.strictSame(fleet.list(), [vmView('web1')]);
});

void t.test('a body beyond the limit is refused, one at the limit is read', async (t) => {
  const { socketPath } = await serveFleet(t);
  const big = await call(socketPath, 'PATCH', '/v1/vms/web1', ' '.repeat(BODY_LIMIT_BYTES + 1));
  detailOf(t, big, 413);
  t.equal(big.headers.connection, 'close');
  const padded = '{"balloonBytes":4096}'.padEnd(BODY_LIMIT_BYTES);
  t.equal((await call(socketPath, 'PATCH', '/v1/vms/web1', padded)).status, 200);
});

void t.test('unknown paths, VMs and parameters', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  for (const path of [
    '/',
    '/v1',
    '/v1/vms/',
    '/v1/vms/web1/',
    '/v1//vms',
    '/v1/vms/web1/stats/x',
    '/v1/vms/../vms',
  ]) {
    t.match(detailOf(t, await call(socketPath, 'GET', path), 404), /openapi\.json/, path);
  }
  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/vms/nope'), 404), /"nope".*web1/);
  const released = { order: 'released', says: 'left alone', by: 'operator', since: null } as const;
  fleet.waiting.set('web-9', [{ ...released, undo: 'balloonctl adopt libvirt:web-9' }]);
  t.match(
    detailOf(t, await call(socketPath, 'GET', '/v1/vms/web-9'), 404),
    /"web-9" was released by an operator: run balloonctl adopt libvirt:web-9$/,
  );
  fleet.waiting.clear();
  for (const body of ['{"balloonBytes":1}', '{', '', 'x'.repeat(BODY_LIMIT_BYTES + 1)]) {
    detailOf(t, await call(socketPath, 'PATCH', '/v1/vms/nope', body), 404);
  }
  t.match(
    detailOf(t, await call(socketPath, 'PATCH', '/v1/policy', '{"paused":true,"vm":"nope"}'), 404),
    /web1/,
  );
  detailOf(t, await call(socketPath, 'PUT', '/v1/vms/nope/inhibit'), 404);
  detailOf(t, await call(socketPath, 'DELETE', '/v1/vms/nope/inhibit'), 404);
  detailOf(t, await call(socketPath, 'GET', '/v1/vms/nope/stats?refresh=true'), 404);
  detailOf(t, await call(socketPath, 'GET', '/v1/vms/%E0%A4%A'), 400);
  for (let n = 0; n < 30; n++) fleet.put(vmView(`vm${n}`));
  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/vms/nope'), 404), /and 11 more$/);

  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/vms?all=1'), 400), /all.*none/);
  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/events?sice=0'), 400), /did you mean since\?/);
  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/events?since=0&since=1'), 400), /give it once/);
  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/events?level=debug'), 400), /info or warn or error/);
  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/events?vm='), 400), /vm is empty/);
  t.match(detailOf(t, await call(socketPath, 'GET', '/v1/vms/web1/stats?refresh=yes'), 400), /true or false/);
  for (const since of [
    '-1',
    '1.5',
    '',
    'x',
    '9'.repeat(20),
    'abcdef01-',
    '2026-13-01T00:00Z',
    '2026-01-01T00:00',
  ]) {
    t.match(
      detailOf(t, await call(socketPath, 'GET', `/v1/events?since=${since}`), 400),
      /the id of an event/,
    );
  }
});

void t.test('VM names need not be tame', async (t) => {
  const names = ['a/b', 'a b', '..', '%41', 'ünï', '?#&', '__proto__'];
  const { socketPath } = await serveFleet(t, new MemoryFleet(...names.map((name) => vmView(name))));
  for (const name of names) {
    const answer = await call(socketPath, 'GET', `/v1/vms/${encodeURIComponent(name)}`);
    t.equal((answer.document as VmView).name, name);
  }
});

void t.test('statistics', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  const path = '/v1/vms/web1/stats';
  t.strictSame((await call(socketPath, 'GET', path)).document, vmView('web1').stats);
  const fresh = await call(socketPath, 'GET', `${path}?refresh=true`);
  t.match(fresh.document, { ageSeconds: 0, 'tag-timeout': 5000 });
  fleet.put(vmView('web1', { stats: null }));
  t.match(detailOf(t, await call(socketPath, 'GET', path), 409), /refresh/);
  fleet.put(vmView('web1', { stats: null, features: [] }));
  t.match(detailOf(t, await call(socketPath, 'GET', path), 409), /VIRTIO_BALLOON_F_STATS_VQ/);
  fleet.refusal = 'no answer in time';
  t.match(detailOf(t, await call(socketPath, 'GET', `${path}?refresh=true`), 409), /no answer/);
});

void t.test('inhibit and allow', async (t) => {
  const { socketPath } = await serveFleet(t);
  const path = '/v1/vms/web1/inhibit';
  const inhibited = async (method: string, body?: string) =>
    ((await call(socketPath, method, path, body)).document as VmView).inhibited;
  t.equal(await inhibited('PUT'), 'inhibited by the operator');
  t.equal(await inhibited('PUT', '{"reason":"backup"}'), 'backup');
  t.equal(await inhibited('DELETE'), null);
});

void t.test('a fault in the daemon is a 500 that tells the client nothing, the log all', async (t) => {
  const fleet = new MemoryFleet(vmView('web1'));
  const { socketPath, refusals } = await serveFleet(t, fleet);
  const fault = new TypeError('secret');
  fleet.onFind = () => {
    throw fault;
  };
  const detail = detailOf(t, await call(socketPath, 'GET', '/v1/vms/web1'), 500);
  t.notMatch(detail, /secret/);
  t.strictSame(refusals, [{ method: 'GET', url: '/v1/vms/web1', status: 500, detail, cause: fault }]);
  t.equal((await call(socketPath, 'GET', '/healthz')).status, 200, 'and the server goes on');
});

void t.test('what is no HTTP is refused as a problem too', async (t) => {
  const { socketPath } = await serveFleet(t);
  const raw = (bytes: string) =>
    new Promise<string>((resolve, reject) => {
      let text = '';
      const socket = connect(socketPath, () => socket.write(bytes));
      socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      socket.on('error', reject).on('close', () => resolve(text));
    });
  t.match(await raw('hello\r\n\r\n'), /^HTTP\/1\.1 400 .*problem\+json.*curl/s);
  t.match(await raw(`GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`), /^HTTP\/1\.1 431 /);
  const [headers, body] = await Promise.all([
    raw('GET /v1/vms HTTP/1.1\r\nhost:'),
    raw('PATCH /v1/vms/web1 HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{'),
  ]);
  t.match(headers, /^HTTP\/1\.1 408 /, 'headers that never end');
  t.match(body, /^HTTP\/1\.1 408 /, 'a body that never ends');
});

void t.test('a client that hangs up in its body is nobody to report on', async (t) => {
  const { socketPath, refusals } = await serveFleet(t);
  await new Promise<void>((resolve) => {
    const socket = connect(socketPath, () => {
      socket.end('PATCH /v1/vms/web1 HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{');
    });
    socket.resume().on('close', () => resolve());
  });
  t.equal((await call(socketPath, 'GET', '/healthz')).status, 200);
  t.strictSame(refusals, []);
});

void t.test('the socket', async (t) => {
  const path = join(temporaryFolder(t), 'control.sock');
  const start = () =>
    startControlServer(path, new MemoryFleet(), new MemoryEvents(), VERSION, new MemoryDaemon());

  const first = await start();
  t.equal(statSync(path).mode & 0o777, 0o660, 'for owner and group');
  await t.rejects(start(), { code: 'EADDRINUSE' }, 'a live socket is not taken over');
  t.equal((await call(path, 'GET', '/healthz')).status, 200, 'and goes on serving');
  await first.close();
  t.notOk(existsSync(path), 'unlinked at close');

  closeFd(listenUnix(path));
  t.ok(existsSync(path), 'stale: nobody listens');
  const second = await start();
  t.equal((await call(path, 'GET', '/healthz')).status, 200, 'taken over');
  await second.close();

  writeFileSync(path, 'precious');
  await t.rejects(start(), 'a file that is no socket stays');
  t.ok(existsSync(path));
  await t.rejects(
    startControlServer(join(path, 'x'), new MemoryFleet(), new MemoryEvents(), VERSION, new MemoryDaemon()),
    {
      code: 'ENOTDIR',
    },
  );
});

void t.test('close lets a reply under way go out', async (t) => {
  const fleet = new MemoryFleet(vmView('web1'));
  const { socketPath, close } = await serveFleet(t, fleet);
  const closed = new Promise<void>((resolve, reject) => {
    fleet.onFind = () => void close().then(resolve, reject);
  });
  const answer = await call(socketPath, 'GET', '/v1/vms/web1/stats?refresh=true');
  t.equal(answer.status, 200);
  await closed;
});

// Sooner than the connection would time out by itself.
void t.test('close does not wait for ever', { timeout: 10_000 }, async (t) => {
  const fleet = new MemoryFleet(vmView('web1'));
  fleet.refreshStats = () => new Promise(() => undefined);
  const { socketPath, close } = await serveFleet(t, fleet);
  const stuck = call(socketPath, 'GET', '/v1/vms/web1/stats?refresh=true');
  await call(socketPath, 'GET', '/healthz');
  await Promise.all([t.rejects(stuck, { code: 'ECONNRESET' }), close()]);
});

void t.test('no fd is left behind', { timeout: 10_000 }, async (t) => {
  const count = () => readdirSync('/proc/self/fd').length;
  const before = count();
  const { socketPath, close } = await serveFleet(t);
  for (let n = 0; n < 20; n++) {
    await call(socketPath, 'GET', '/v1/vms');
    await call(socketPath, 'PATCH', '/v1/vms/web1', '{');
    await call(socketPath, 'GET', '/v1/events?since=0&follow=false');
  }
  await close();
  // The last close of a client's socket may be under way.
  while (count() > before) await new Promise(setImmediate);
  t.equal(count(), before);
});
