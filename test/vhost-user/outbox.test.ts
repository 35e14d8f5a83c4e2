import t from 'tap';
import { FrontendError } from '../../src/memory/errors.js';
import { StateFile } from '../../src/memory/state-file.js';
import { closeFd } from '../../src/os/fd.js';
import { consume, peek, receive, send, setPeekOffset, socketPair } from '../../src/os/socket.js';
import { KeptOutbox, PlainOutbox } from '../../src/vhost-user/outbox.js';
import { concat } from '../support/wire.js';

const KIB = 1024;

/** So that what is lost, or comes twice, shows. */
function message(lenBytes: number, n: number): Uint8Array {
  return Uint8Array.from({ length: lenBytes }, (_, at) => (at * 31 + n * 7) & 0xff);
}

/** All there is to read now. */
function readAll(fd: number): Uint8Array {
  const parts: Uint8Array[] = [];
  const scratch = new Uint8Array(64 * KIB);
  for (let got; (got = receive(fd, scratch, 0, scratch.length, [])) > 0;) parts.push(scratch.slice(0, got));
  return concat(...parts);
}

/** Takes what the socket has room for. */
function stuff(fd: number): number {
  const bytes = message(4 * KIB, 0);
  let sent = 0;
  for (let got; (got = send(fd, bytes, 0, bytes.length, [])) > 0;) sent += got;
  return sent;
}

void t.test('plain: what the socket has no room for goes out later, in order and whole', (t) => {
  const [ours, theirs] = socketPair();
  const outbox = new PlainOutbox();
  const before = stuff(ours);
  const messages = [1, 2, 3].map((n) => message(20 * KIB, n));
  for (const each of messages) {
    outbox.add(each);
    t.notOk(outbox.flush(ours));
  }
  let got = readAll(theirs);
  for (let tries = 0; !outbox.flush(ours); tries++) {
    if (tries > 100) throw new Error('it never gets through');
    got = concat(got, readAll(theirs));
  }
  got = concat(got, readAll(theirs));
  t.same(got.subarray(before), concat(...messages));
  [ours, theirs].forEach(closeFd);
  t.end();
});

void t.test('plain: who does not read is cut off at 64 KiB, and not before', (t) => {
  const outbox = new PlainOutbox();
  outbox.add(message(40 * KIB, 1));
  outbox.answer(12, message(24 * KIB, 2));
  outbox.answer(12, null);
  t.throws(() => outbox.answer(12, message(1, 3)), FrontendError);
  t.end();
});

void t.test('kept: room is given back when all was read, and the next process goes on in the middle', (t) => {
  const [ours, theirs] = socketPair();
  const state = StateFile.create();
  const outbox = new KeptOutbox(state, ours);
  const expected: Uint8Array[] = [];
  const answer = (n: number): void => {
    const reply = message(10 * KIB, n);
    outbox.answer(12, reply);
    outbox.takes(12);
    outbox.taken();
    expected.push(reply);
  };
  // Three times what there is room for.
  for (let n = 0; n < 20; n++) {
    outbox.makeRoom(ours);
    answer(n);
    t.ok(outbox.flush(ours), `${n} is sent`);
    // Not before it was all sent: who is woken by an answer takes a while.
    t.same(readAll(theirs), expected.at(-1));
  }
  outbox.makeRoom(ours);
  const before = stuff(ours);
  const left = [20, 21, 22].map((n) => {
    answer(n);
    return expected.at(-1) ?? new Uint8Array(0);
  });
  t.notOk(outbox.flush(ours), 'it does not read');
  let got = readAll(theirs);
  const next = new KeptOutbox(state, ours);
  for (let tries = 0; !next.flush(ours); tries++) {
    if (tries > 100) throw new Error('it never gets through');
    got = concat(got, readAll(theirs));
  }
  got = concat(got, readAll(theirs));
  t.same(got.subarray(before), concat(...left), 'nothing is lost or comes twice');

  stuff(ours);
  t.throws(() => {
    for (let n = 0; n < 10; n++) {
      outbox.makeRoom(ours);
      answer(n);
    }
  }, FrontendError);
  [ours, theirs].forEach(closeFd);
  state.close();
  t.end();
});

void t.test('kept: a message is taken once, wherever the process before ended', (t) => {
  const [first, second] = [message(12, 1), message(20, 2)];
  type Steps = (state: StateFile, fd: number) => void;
  const acts: Steps = (state) => state.commit(first.length, null);
  const begins: Steps = (state) => state.takes(first.length + second.length);
  const beginsAsBefore: Steps = (_, fd) => setPeekOffset(fd, 2 ** 20 + first.length);
  const takes =
    (lenBytes: number): Steps =>
    (_, fd) =>
      consume(fd, lenBytes);
  const says: Steps = (state) => state.taken();
  const actsOnBoth: Steps = (state) => state.commit(first.length + second.length, null);
  /** The steps, after which of them only the second message is left, and after which none is. */
  const processes: Record<string, readonly [readonly Steps[], number, number]> = {
    'this build': [[acts, begins, takes(5), takes(7), says], 1, Infinity],
    'this build, of two': [[acts, actsOnBoth, begins, takes(5), takes(7), takes(20), says], 1, 2],
    'a build before 0.2': [[acts, beginsAsBefore, takes(5), takes(7), says], 1, Infinity],
  };
  for (const [build, [steps, one, both]] of Object.entries(processes)) {
    for (let count = 0; count <= steps.length; count++) {
      const [ours, theirs] = socketPair();
      const state = StateFile.create();
      for (const each of [first, second]) send(theirs, each, 0, each.length, []);
      if (build.startsWith('this build')) {
        setPeekOffset(ours, 0);
        peek(ours, 0, new Uint8Array(100), []);
      }
      for (const step of steps.slice(0, count)) step(state, ours);
      // The second one finds that it is done.
      for (let n = 0; n < 2; n++) new KeptOutbox(state, ours);
      const left = [first, second].slice(Number(count >= one) + Number(count >= both));
      t.same(readAll(ours), concat(...left), `${build}, after ${count} steps`);
      [ours, theirs].forEach(closeFd);
      state.close();
    }
  }
  t.end();
});
