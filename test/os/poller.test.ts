import { closeSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { closeFd } from '../../src/os/fd.js';
import { Poller, READABLE, WRITABLE } from '../../src/os/poller.js';
import type { SystemError } from '../../src/os/errors.js';
import { receive, send, socketPair } from '../../src/os/socket.js';
import { openFds, runNode, script } from './inspect.js';

const byte = Uint8Array.of(1);
/** Long enough for the loop to poll at least once more. */
const turns = async (): Promise<void> => {
  for (let n = 0; n < 5; n++) await new Promise((resolve) => setImmediate(resolve));
};

void t.test('readable and writable', async (t) => {
  const before = openFds();
  const [a, b] = socketPair();
  const seen: number[] = [];
  const poller = new Poller(a, READABLE, (events) => {
    seen.push(events);
    receive(a, new Uint8Array(8), 0, 8, []);
    poller.setEvents(READABLE | WRITABLE);
  });
  await turns();
  t.same(seen, [], 'not yet readable');
  send(b, byte, 0, 1, []);
  await turns();
  t.equal(seen[0], READABLE);
  t.ok(seen.slice(1).length > 0, 'level-triggered');
  t.ok(seen.slice(1).every((events) => events === WRITABLE));
  poller.setEvents(0);
  const paused = seen.length;
  await turns();
  t.equal(seen.length, paused);
  poller.close();
  poller.setEvents(READABLE);
  closeFd(a);
  closeFd(b);
  t.equal(openFds(), before);
});

void t.test('close inside the callback', async (t) => {
  const [a, b] = socketPair();
  let calls = 0;
  const poller = new Poller(a, READABLE, () => {
    calls++;
    poller.close();
    poller.close();
    closeFd(a);
  });
  send(b, byte, 0, 1, []);
  await turns();
  t.equal(calls, 1);
  closeFd(b);
});

void t.test('of two that are ready at once, the first closes the second', async (t) => {
  const pairs = [socketPair(), socketPair()];
  let calls = 0;
  const pollers = pairs.map(
    ([fd]) =>
      new Poller(fd, READABLE, () => {
        calls++;
        for (const poller of pollers) poller.close();
      }),
  );
  for (const [, peer] of pairs) send(peer, byte, 0, 1, []);
  await turns();
  t.equal(calls, 1, 'never called back after close()');
  for (const fd of pairs.flat()) closeFd(fd);
});

void t.test('the number of a closed fd can be watched again at once', async (t) => {
  const [a, b] = socketPair();
  new Poller(a, READABLE, () => t.fail('closed before anything came')).close();
  let calls = 0;
  const again = new Poller(a, READABLE, () => {
    calls++;
    again.close();
  });
  t.throws(() => new Poller(a, READABLE, () => undefined), { code: 'EEXIST', syscall: 'poll' });
  send(b, byte, 0, 1, []);
  await turns();
  t.equal(calls, 1);
  closeFd(a);
  closeFd(b);
});

void t.test('a reset peer is ECONNRESET, once', async (t) => {
  const [a, b] = socketPair();
  send(a, byte, 0, 1, []);
  const errors: (SystemError | null)[] = [];
  const poller = new Poller(a, READABLE, (_events, error) => errors.push(error));
  closeFd(b);
  await turns();
  t.match(errors, [{ code: 'ECONNRESET', syscall: 'poll' }]);
  t.equal(errors.length, 1);
  poller.close();
  closeFd(a);
});

void t.test('what cannot be watched', (t) => {
  const file = openSync(fileURLToPath(import.meta.url), 'r');
  const [a, b] = socketPair();
  t.throws(() => new Poller(file, READABLE, () => undefined), { code: 'EPERM', syscall: 'poll' });
  closeSync(file);
  t.throws(() => new Poller(file, READABLE, () => undefined), { code: 'EBADF', syscall: 'poll' });
  t.throws(() => new Poller(a, 64, () => undefined), TypeError);
  const poller = new Poller(a, READABLE, () => undefined);
  t.throws(() => poller.setEvents(64), TypeError);
  poller.close();
  closeFd(a);
  closeFd(b);
  t.end();
});

const throwing = (handler: string): string =>
  script(
    { poller: 'Poller, READABLE', socket: 'send, socketPair', fd: 'closeFd' },
    `const [a, b] = socketPair();
     ${handler}
     const poller = new Poller(a, READABLE, () => { poller.close(); throw new Error('thrown in a callback'); });
     send(b, new Uint8Array(1), 0, 1, []);`,
  );

void t.test('an exception in a callback is an uncaughtException', (t) => {
  const dies = runNode(throwing(''));
  t.not(dies.status, 0);
  t.equal(dies.signal, null, 'not a crash');
  t.match(dies.stderr, /Error: thrown in a callback/);
  const lives = runNode(
    throwing(`process.on('uncaughtException', (error) => setImmediate(() => console.log(error.message)));`),
  );
  t.match(lives, { status: 0, stdout: 'thrown in a callback' });
  t.end();
});

void t.test('a worker may end while it watches', async (t) => {
  const busy = script(
    {
      poller: 'Poller, READABLE, WRITABLE',
      eventfd: 'createEventFd, EventWatch, signalEvent',
      socket: 'socketPair',
    },
    `import { parentPort } from 'node:worker_threads';
     const fd = createEventFd(1);
     let calls = 0;
     new EventWatch(fd, () => { signalEvent(fd); if (++calls === 10) parentPort.postMessage('busy'); });
     new Poller(socketPair()[0], READABLE | WRITABLE, () => {});`,
  );
  const url = new URL(`data:text/javascript,${encodeURIComponent(busy)}`);
  const worker = new Worker(`import(${JSON.stringify(url.href)}).catch((error) => { throw error; });`, {
    eval: true,
  });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  t.equal(await worker.terminate(), 1);
});
