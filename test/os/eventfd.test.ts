import { execFileSync, spawn } from 'node:child_process';
import { openSync, readFileSync, writeSync } from 'node:fs';
import t from 'tap';
import { createEventFd, drainEvent, EventWatch, isEventFd, signalEvent } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { createMemfd } from '../../src/os/memfd.js';
import { receive, send, socketPair } from '../../src/os/socket.js';
import { isCloseOnExec, openFds } from './inspect.js';

const turns = async (): Promise<void> => {
  for (let n = 0; n < 5; n++) await new Promise((resolve) => setImmediate(resolve));
};

function add(fd: number, value: bigint): void {
  writeSync(fd, new BigUint64Array([value]));
}

void t.test('the counter', (t) => {
  // The first signal opens what all signals share.
  const first = createEventFd();
  signalEvent(first);
  closeFd(first);
  const before = openFds();
  const fd = createEventFd(3);
  t.ok(isCloseOnExec(fd));
  t.equal(drainEvent(fd), 3);
  t.equal(drainEvent(fd), 0);
  let raised = 0;
  for (let n = 0; n < 1000; n++) raised += signalEvent(fd) ? 1 : 0;
  t.equal(raised, 1000);
  t.equal(drainEvent(fd), 1000, 'none lost, none twice');
  closeFd(fd);
  t.equal(openFds(), before);
  t.throws(() => createEventFd(2 ** 32), TypeError);
  t.throws(() => createEventFd(-1), TypeError);
  t.end();
});

void t.test('a full counter takes no more', (t) => {
  const fd = createEventFd();
  add(fd, 0xffff_ffff_ffff_fffen);
  t.equal(signalEvent(fd), false);
  t.ok(drainEvent(fd) > Number.MAX_SAFE_INTEGER);
  t.equal(signalEvent(fd), true);
  t.equal(drainEvent(fd), 1);
  closeFd(fd);
  t.end();
});

const hasAio = (): boolean => readFileSync('/proc/self/maps', 'latin1').includes('[aio]');

void t.test('a write that blocks is ended, and the counter stays as it is', (t) => {
  const fd = createEventFd();
  t.equal(signalEvent(fd), true);
  t.equal(drainEvent(fd), 1);
  t.equal(hasAio(), false, 'a process with asynchronous I/O takes 50 ms longer to end');
  // The standard input of a program is made to block, which holds for all that have the counter open.
  execFileSync('true', { stdio: [fd, 'ignore', 'ignore'] });
  add(fd, 0xffff_ffff_ffff_fffen);
  const before = openFds();
  t.equal(signalEvent(fd), false);
  t.equal(hasAio(), true, 'what comes next does not block');
  t.equal(openFds(), before);
  t.equal(isCloseOnExec(fd), true);
  t.equal(signalEvent(fd), false);
  t.ok(drainEvent(fd) > Number.MAX_SAFE_INTEGER, 'the same counter as before');
  t.equal(signalEvent(fd), true);
  t.equal(drainEvent(fd), 1);
  closeFd(fd);
  t.end();
});

void t.test('what is an eventfd', (t) => {
  const event = createEventFd();
  const file = createMemfd('eventfd-count:', 4096);
  const [a, b] = socketPair();
  const device = openSync('/dev/null', 'r+');
  t.equal(isEventFd(event), true);
  for (const fd of [file, a, b, device]) t.equal(isEventFd(fd), false);
  t.equal(signalEvent(a), false);
  t.equal(receive(b, new Uint8Array(8), 0, 8, []), -1, 'nothing was written');
  for (const fd of [event, file, a, b, device]) closeFd(fd);
  t.equal(isEventFd(event), false);
  t.equal(signalEvent(event), false);
  t.equal(drainEvent(event), 0);
  t.end();
});

void t.test('wake-ups coalesce, also those of a counter that nobody reads', async (t) => {
  const fd = createEventFd();
  let calls = 0;
  const watch = new EventWatch(fd, () => calls++);
  await turns();
  t.equal(calls, 0);
  for (let round = 1; round <= 5; round++) {
    for (let n = 0; n < 3; n++) signalEvent(fd);
    await turns();
    t.equal(calls, round);
  }
  await turns();
  t.equal(calls, 5, 'and no more than that');
  watch.close();
  watch.close();
  signalEvent(fd);
  await turns();
  t.equal(calls, 5);
  t.equal(drainEvent(fd), 4 * 3 + 1, 'not owned: still open');
  closeFd(fd);
});

void t.test('what was signalled before the watch is seen', async (t) => {
  const fd = createEventFd(1);
  let calls = 0;
  const watch = new EventWatch(fd, () => {
    calls++;
    watch.close();
    signalEvent(fd);
  });
  await turns();
  t.equal(calls, 1);
  closeFd(fd);
});

void t.test('a full counter that is watched', async (t) => {
  const fd = createEventFd();
  add(fd, 0xffff_ffff_ffff_fffen);
  let calls = 0;
  const watch = new EventWatch(fd, () => calls++);
  await turns();
  t.equal(calls, 1);
  t.equal(signalEvent(fd), true);
  await turns();
  t.equal(calls, 2);
  watch.close();
  closeFd(fd);
});

/**
 * Rule 13: no VMM may block another VM. This one shares a blocking eventfd (that of standard input is made so), fills
 * the counter as fast as it can, and empties it only in bursts. Between two bursts it waits for a word from us, for
 * ever if need be: a signal that blocks, be it for want of luck between a check and a write, hangs this test.
 */
const HOSTILE = `
  const { readSync, writeSync } = require('node:fs');
  const { Worker } = require('node:worker_threads');
  new Worker(\`
    const full = new BigUint64Array([0xfffffffffffffffen]);
    for (;;) require('node:fs').writeSync(0, full);
  \`, { eval: true });
  const counter = Buffer.alloc(8), word = Buffer.alloc(1), idle = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    for (let got = 0; got === 0; Atomics.wait(idle, 0, 0, 1)) {
      try { got = readSync(3, word); if (got === 0) process.exit(0); } catch { got = 0; }
    }
    for (let n = 0; n < 1000; n++) readSync(0, counter);
    writeSync(3, word);
  }`;

void t.test('rule 13: signalling never blocks, whatever the other side does', async (t) => {
  const fd = createEventFd();
  const [ours, theirs] = socketPair();
  const child = spawn(process.execPath, ['-e', HOSTILE], { stdio: [fd, 'ignore', 'inherit', theirs] });
  closeFd(theirs);
  const word = new Uint8Array(1);
  let signals = 0;
  for (let burst = 0; burst < 50; burst++) {
    send(ours, word, 0, 1, []);
    while (receive(ours, word, 0, 1, []) < 0) {
      signalEvent(fd);
      signals++;
    }
  }
  t.ok(signals > 50);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
  closeFd(ours);
  closeFd(fd);
});
