import { randomBytes } from 'node:crypto';
import { ftruncateSync, readdirSync, readSync, writeSync } from 'node:fs';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { EventLog } from '../../src/ops/event-log.js';
import { EventMemory, EVENT_BYTES_MAX, takeOverEvents } from '../../src/ops/event-memory.js';
import { closeFd, duplicateFd } from '../../src/os/fd.js';
import { createMemfd, sealMemfd } from '../../src/os/memfd.js';
import { socketPair } from '../../src/os/socket.js';

const SIZE = 1024 * 1024;
const MUTE = { debug: nothing, info: nothing, warn: nothing, error: nothing };

function nothing(): void {
  // No log is looked at here.
}

const openFiles = (): number => readdirSync('/proc/self/fd').length;

function bytesOf(fd: number): Buffer {
  const bytes = Buffer.alloc(SIZE);
  readSync(fd, bytes, 0, SIZE, 0);
  return bytes;
}

/** A memory with these bytes in its file. */
function fileOf(bytes: Uint8Array): number {
  const fd = createMemfd('test-events', 0);
  writeSync(fd, bytes);
  return fd;
}

function opened(t: Test, fd: number): EventMemory {
  const memory = EventMemory.open(fd);
  if (typeof memory === 'string') throw new Error(memory);
  t.teardown(() => memory.close());
  return memory;
}

/** A log of `count` events and its memory. */
function remembered(t: Test, count: number): { log: EventLog; memory: EventMemory } {
  const memory = EventMemory.create();
  t.teardown(() => memory.close());
  const log = new EventLog(MUTE, memory);
  for (let n = 1; n <= count; n++) log.emit('vm-connected', `event ${n}`, { n }, `vm-${n}`);
  return { log, memory };
}

void t.test('the next daemon goes on with the same events, numbers and epoch', (t) => {
  const { log, memory } = remembered(t, 3);
  const handed = takeOverEvents([duplicateFd(memory.fd)]);
  t.same(handed.setAside, []);
  const next = new EventLog(MUTE, handed.memory);
  t.same(next.recent(0), log.recent(0));
  t.equal(next.epoch, log.epoch);
  next.emit('daemon-started', 'again');
  t.same(
    next.recent(0).map(({ id }) => id),
    [1, 2, 3, 4].map((seq) => `${log.epoch}-${seq}`),
  );
  handed.memory.close();
  t.not(new EventLog(MUTE).epoch, log.epoch, 'without a memory an epoch is new');
  t.end();
});

void t.test('the file goes round and round, with events of any length', (t) => {
  const { log, memory } = remembered(t, 0);
  for (let n = 1; n <= 5000; n++) {
    log.emit('vm-connected', 'é'.repeat((n * 7919) % 6000), { n }, `vm-${n}`);
    if (n % 500 !== 0) continue;
    const again = opened(t, duplicateFd(memory.fd));
    t.equal(again.newest, n);
    const { events } = again.recall();
    const kept = log.recent(n - events.length);
    t.ok(events.length > 100, `${events.length} are kept`);
    t.same(events, kept, 'the newest ones, none left out, with everything in them');
  }
  t.end();
});

void t.test('after each store that could have been the last one, all older events are there', (t) => {
  const { log, memory } = remembered(t, 6000);
  const before = bytesOf(memory.fd);
  const known = log.recent(0);
  log.emit('vm-connected', 'the last', {}, 'last');
  const after = bytesOf(memory.fd);
  const changed: number[] = [];
  for (let at = 0; at < SIZE; at++) if (before[at] !== after[at]) changed.push(at);
  t.ok(changed.length > 30, `${changed.length} bytes were changed`);
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { minLength: changed.length, maxLength: changed.length }),
      (stored) => {
        const cut = Buffer.from(before);
        changed.forEach((at, n) => {
          if (stored[n] === true) cut[at] = after[at] ?? 0;
        });
        const memory = EventMemory.open(fileOf(cut));
        if (typeof memory === 'string') throw new Error(memory);
        const { newest } = memory;
        const { events } = memory.recall();
        memory.close();
        return (
          newest >= 6000 &&
          events.length >= 999 &&
          events.every((event) => event.seq > 6000 || known.some(({ id }) => id === event.id))
        );
      },
    ),
    { numRuns: 15 },
  );
  const whole = opened(t, fileOf(after));
  t.equal(whole.newest, 6001);
  t.end();
});

void t.test('what is none is set aside, whatever it is, and closed', (t) => {
  const { memory } = remembered(t, 3);
  const good = bytesOf(memory.fd);
  const changed = (change: (bytes: Buffer) => void): number => {
    const bytes = Buffer.from(good);
    change(bytes);
    return fileOf(bytes);
  };
  const sealed = fileOf(good);
  sealMemfd(sealed);
  const [socket, other] = socketPair();
  t.teardown(() => closeFd(other));
  const cases: [string, number, RegExp][] = [
    ['empty', fileOf(new Uint8Array()), /it has 0 bytes/],
    ['short', fileOf(good.subarray(0, SIZE - 1)), /bytes/],
    ['a socket', socket, /bytes/],
    ['noise', fileOf(randomBytes(SIZE)), /no memory of events/],
    ['sealed', sealed, /mmap/],
    ['newer', changed((bytes) => bytes.writeUInt32LE(2, 4)), /layout 2, and this one reads 1/],
    ['another size', changed((bytes) => bytes.writeUInt32LE(1, 8)), /damaged/],
    ['another epoch', changed((bytes) => bytes.write('00000000', 16)), /damaged/],
  ];
  for (const [name, fd, why] of cases) {
    const before = openFiles();
    const { memory: fresh, setAside } = takeOverEvents([fd]);
    t.equal(setAside.length, 1, name);
    t.match(setAside[0], why, name);
    t.not(fresh.epoch, memory.epoch);
    t.equal(fresh.newest, 0);
    fresh.close();
    t.equal(openFiles(), before - 1, `${name} is closed`);
  }
  t.end();
});

void t.test('events of another build are counted, left out, and their numbers not used again', (t) => {
  const { memory } = remembered(t, 2);
  const time = new Date(0).toISOString();
  memory.add(3, JSON.stringify({ time, event: 'of-tomorrow', level: 'info', message: 'x', fields: {} }));
  memory.add(4, '{"not":"an event"}');
  memory.add(5, 'no JSON');
  const { memory: next, setAside } = takeOverEvents([duplicateFd(memory.fd)]);
  t.same(setAside, []);
  const log = new EventLog(MUTE, next);
  log.emit('daemon-started', 'x');
  t.equal(log.newest, 6);
  t.equal(log.recall(), 3);
  t.equal(log.recall(), 0, 'which is said once');
  t.same(
    log.recent(0).map(({ seq }) => seq),
    [1, 2, 6],
  );
  next.close();
  t.end();
});

void t.test('what newer events have taken the place of is not recalled, and not called unreadable', (t) => {
  const { memory } = remembered(t, 6000);
  const next = opened(t, duplicateFd(memory.fd));
  const log = new EventLog(MUTE, next);
  const before = next.recall().events.length;
  for (let n = 0; n < 100; n++) log.emit('vm-connected', 'x'.repeat(5000), {}, `vm-${n}`);
  t.equal(log.recall(), 0);
  const events = log.recent(0);
  t.ok(events.length < before + 100, `${events.length} of ${before} and 100`);
  t.same(
    events.map(({ seq }) => seq),
    Array.from(events, (_, n) => 6101 - events.length + n),
    'none in between is left out',
  );
  t.end();
});

void t.test('no text of an event can be taken for a record', (t) => {
  const { log, memory } = remembered(t, 1);
  const record = bytesOf(memory.fd).subarray(64, 128);
  const text = [record.toString('latin1'), record.toString('utf8'), record.toString('utf16le')];
  for (const message of text) log.emit('vm-connected', message.repeat(20), {}, 'evil');
  const again = opened(t, duplicateFd(memory.fd));
  t.same(again.recall().events, log.recent(0));
  t.end();
});

void t.test('any change of any byte is survived', (t) => {
  const { memory } = remembered(t, 50);
  const good = bytesOf(memory.fd);
  const change = fc.tuple(fc.integer({ min: 0, max: 8191 }), fc.integer({ min: 0, max: 255 }));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 20 }), (changes) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of changes) bytes[at] = value;
      const { memory: next } = takeOverEvents([fileOf(bytes)]);
      const log = new EventLog(MUTE, next);
      const { newest } = log;
      log.emit('daemon-started', 'x');
      next.close();
      return log.newest === newest + 1;
    }),
    { numRuns: 50 },
  );
  t.end();
});

void t.test('of two, the one that was gone on with last; a file that shrinks is no end', (t) => {
  const old = remembered(t, 5).memory;
  const young = EventMemory.create();
  t.teardown(() => young.close());
  const time = '2999-01-01T00:00:00.000Z';
  young.add(1, JSON.stringify({ time, event: 'vm-connected', level: 'info', message: 'x', fields: {} }));
  for (const order of [
    [old, young],
    [young, old],
  ]) {
    const { memory } = takeOverEvents(order.map(({ fd }) => duplicateFd(fd)));
    t.equal(memory.epoch, young.epoch);
    memory.close();
  }
  const log = new EventLog(MUTE, young);
  ftruncateSync(young.fd, 0);
  log.emit('vm-connected', 'x'.repeat(EVENT_BYTES_MAX / 2), {}, 'vm');
  t.equal(log.recent(0).length, 1);
  t.end();
});
