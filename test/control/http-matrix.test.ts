// What HTTP can bring, byte by byte, to both servers: each answer is one, and each refusal a problem document.
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { Check } from 'typebox/schema';
import { SCHEMAS } from '../../protocol/control/schema.js';
import { startMetricsServer } from '../../src/control/metrics-server.js';
import { MemoryEvents, MemoryFleet, MemoryHistory, serveFleet, vmView } from '../support/fleet.js';
import { NEXT_STEP } from '../support/next-step.js';

interface Raw {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

type Dial = () => Socket;

/** Sends these bytes, and returns all that comes until the server closes, or until `until` is in it. */
function exchange(dial: Dial, bytes: string, until = /\0/): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = dial();
    socket.on('connect', () => socket.write(bytes, 'latin1'));
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      if (until.test(text)) socket.destroy();
    });
    socket.on('error', reject).on('close', () => resolve(text));
  });
}

function parse(text: string): Raw {
  const end = text.indexOf('\r\n\r\n');
  const [head, body] = [text.slice(0, end), text.slice(end + 4)];
  const [line = '', ...fields] = head.split('\r\n');
  const headers = Object.fromEntries(
    fields.map((field) => [
      field.slice(0, field.indexOf(':')).toLowerCase(),
      field.slice(field.indexOf(':') + 1).trim(),
    ]),
  );
  return { status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(line)?.[1]), headers, body };
}

const HOST = 'Host: x\r\n';
const CLOSE = 'Connection: close\r\n';
const request = (line: string, fields = '', body = ''): string =>
  `${line} HTTP/1.1\r\n${HOST}${CLOSE}${fields}\r\n${body}`;

/** Refused by either server, with what the detail says. */
const REFUSED: readonly [name: string, status: number, bytes: string, detail: RegExp][] = [
  ['no HTTP', 400, 'hello\r\n\r\n', /no|not an HTTP/],
  ['TLS', 400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', /HTTP/],
  ['HTTP/2', 400, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', /HTTP/],
  ['HTTP/3.7', 400, 'GET / HTTP/3.7\r\nHost: x\r\n\r\n', /HTTP/],
  ['a method that is none', 400, request('FROB /metrics'), /HTTP/],
  ['a method that is unknown', 405, request('PROPFIND /metrics'), /use/],
  ['an unknown path', 404, request('GET /nothing'), /no such path/],
  ['a path in authority form', 400, request('GET x:80'), /HTTP/],
  ['no Host', 400, 'GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n', /Host header is missing/],
  ['two Hosts', 400, request('GET /metrics', 'Host: y\r\n'), /2 Host headers/],
  ['an expectation', 417, request('GET /metrics', 'Expect: 200-ok\r\n'), /Expect/],
  ['CONNECT', 405, 'CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n', /no proxy/],
  ['large headers', 431, request('GET /metrics', `x: ${'y'.repeat(20_000)}\r\n`), /16 KiB/],
  ['a long path', 431, request(`GET /${'y'.repeat(20_000)}`), /16 KiB/],
  ['a header with a control character', 400, request('GET /metrics', 'x: a\x01b\r\n'), /HTTP/],
  ['a header that is none', 400, request('GET /metrics', 'no colon\r\n'), /HTTP/],
  [
    'length and chunks',
    400,
    request('PATCH /metrics', 'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n'),
    /HTTP/,
  ],
  ['two lengths', 400, request('PATCH /metrics', 'Content-Length: 1\r\nContent-Length: 2\r\n'), /HTTP/],
  ['a length that is none', 400, request('PATCH /metrics', 'Content-Length: x\r\n'), /HTTP/],
  ['a coding that is unknown', 400, request('GET /metrics', 'Transfer-Encoding: zip\r\n'), /HTTP/],
];

/** Answered by either server with 200. */
const ANSWERED: readonly [name: string, bytes: string][] = [
  ['a plain request', request('GET /healthz')],
  ['an absolute target', request('GET http://localhost/healthz')],
  ['an absolute target of anything', request('GET HTTPS://[::1]:1/healthz')],
  ['HTTP/1.0 without Host', 'GET /healthz HTTP/1.0\r\n\r\n'],
  ['an upgrade that nobody takes', request('GET /healthz', 'Connection: upgrade\r\nUpgrade: websocket\r\n')],
  [
    'an upgrade to HTTP/2',
    request('GET /healthz', 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n'),
  ],
  [
    'the expectation that there is',
    request('GET /healthz', 'Expect: 100-continue\r\nContent-Length: 1\r\n', 'x'),
  ],
  ['a body that nobody wants', request('GET /healthz', 'Content-Length: 3\r\n', 'abc')],
  [
    'chunks with trailers',
    request('GET /healthz', 'Transfer-Encoding: chunked\r\n', '3\r\nabc\r\n0\r\nx: y\r\n\r\n'),
  ],
];

async function tryAll(t: Test, dial: Dial): Promise<void> {
  for (const [name, status, bytes, detail] of REFUSED) {
    const answer = parse(await exchange(dial, bytes));
    t.equal(answer.status, status, `${name}: ${answer.body}`);
    t.equal(answer.headers['content-type'], 'application/problem+json', name);
    t.equal(Number(answer.headers['content-length']), Buffer.byteLength(answer.body), name);
    const document: unknown = JSON.parse(answer.body);
    if (!Check(SCHEMAS.Problem, document)) throw new Error(answer.body);
    t.equal(document.status, status);
    t.match(document.detail, detail, name);
    t.match(document.detail, NEXT_STEP, name);
    if (status === 405) t.match(answer.headers['allow'], /GET/, name);
  }
  for (const [name, bytes] of ANSWERED) {
    const text = (await exchange(dial, bytes)).replace('HTTP/1.1 100 Continue\r\n\r\n', '');
    const answer = parse(text);
    t.equal(answer.status, 200, `${name}: ${text}`);
    t.match(JSON.parse(answer.body), { status: 'ok' }, name);
  }
  for (const path of ['/healthz', '/metrics']) {
    const [head, get] = await Promise.all(
      ['HEAD', 'GET'].map(async (method) => parse(await exchange(dial, request(`${method} ${path}`)))),
    );
    t.equal(head?.status, 200);
    t.equal(head?.body, '', 'no body');
    t.equal(head?.headers['content-type'], get?.headers['content-type']);
    if (path === '/healthz') t.equal(head?.headers['content-length'], get?.headers['content-length']);
  }
  const missing = parse(await exchange(dial, request('HEAD /nothing')));
  t.match(missing, { status: 404, body: '', headers: { 'content-type': 'application/problem+json' } });
}

void t.test('the control socket', async (t) => {
  const { socketPath, fleet, events } = await serveFleet(t);
  const dial = (): Socket => connect(socketPath);
  await tryAll(t, dial);
  const body = '{"balloonBytes":4096}';
  const chunked = `${body.length.toString(16)}\r\n${body}\r\n0\r\nChecksum: 1\r\n\r\n`;
  const change = parse(
    await exchange(dial, request('PATCH http://x/v1/vms/web1?', 'Transfer-Encoding: chunked\r\n', chunked)),
  );
  t.equal(change.status, 200);
  t.equal(fleet.find('web1')?.balloon.targetBytes, 4096);
  const head = parse(await exchange(dial, request('HEAD /v1/events')));
  t.match(head, { status: 200, body: '', headers: { 'content-type': 'text/event-stream' } });
  t.equal(events.subscribers, 0);
  t.match(parse(await exchange(dial, request('OPTIONS *'))), {
    status: 204,
    headers: { allow: /PATCH.*OPTIONS/ },
  });
  t.equal(parse(await exchange(dial, request('OPTIONS /nothing'))).status, 404);

  const stream = dial();
  let text = '';
  stream.write(`GET /v1/events HTTP/1.1\r\n${HOST}\r\n`);
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    if (text === '') stream.write('nonsense\r\n\r\n');
    text += chunk;
  });
  await new Promise((resolve) => stream.on('close', resolve));
  t.match(text, /^HTTP\/1\.1 200 OK/);
  t.notMatch(text, /400|nonsense/, 'nothing that is no event gets into a stream');
  t.equal(events.subscribers, 0);
});

void t.test('the metrics address', async (t) => {
  const fleet = new MemoryFleet(vmView('web1'));
  const files = { '/': { type: 'text/html; charset=utf-8', text: '<!doctype html>' } };
  const events = new MemoryEvents();
  const server = await startMetricsServer(
    { host: '127.0.0.1', port: 0 },
    { fleet, history: new MemoryHistory() },
    events,
    files,
  );
  t.teardown(() => server.close());
  const dial = (): Socket => connect(server.address.port, '127.0.0.1');
  await tryAll(t, dial);
  for (const path of ['/live', '/events']) {
    t.match(parse(await exchange(dial, request(`HEAD ${path}`))), { status: 200, body: '' });
  }
  t.equal(events.subscribers, 0);
});
