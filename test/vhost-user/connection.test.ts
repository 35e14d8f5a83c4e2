// Messages are taken from their socket after they were answered, many at once: none comes twice, and none is left there.
import t, { type Test } from 'tap';
import { StateFile } from '../../src/memory/state-file.js';
import { HEADER_BYTES, MAX_PAYLOAD_BYTES } from '../../protocol/vhost-user/header.js';
import { createEventFd } from '../../src/os/eventfd.js';
import { closeFd } from '../../src/os/fd.js';
import { NO_KEEPER } from '../../src/os/fd-keeper.js';
import { allRead, peekOffset, receive, send, socketPair } from '../../src/os/socket.js';
import { Connection, type Message } from '../../src/vhost-user/connection.js';
import { KeptOutbox } from '../../src/vhost-user/outbox.js';
import { eventually } from '../support/deadline.js';
import { concat, encodeMessage, VERSION } from '../support/wire.js';

const REPLY_BYTES = 20;
/** More than is taken at once. */
const MANY = 200;
/** The longest payload; the next daemon refuses a state file that tells of more than one such message. */
const LONG_BYTES = MAX_PAYLOAD_BYTES;
const MOST_BYTES = HEADER_BYTES + MAX_PAYLOAD_BYTES;

/** A message that says which it is; its answer says so, too. */
function numbered(n: number, lenBytes = 8): Uint8Array {
  const payload = new Uint8Array(lenBytes);
  new DataView(payload.buffer).setUint32(0, n, true);
  return encodeMessage(1, VERSION, payload);
}

/** One that is told what the kernel has. */
class CheckedOutbox extends KeptOutbox {
  readonly #fd: number;
  readonly #wrong: string[];

  constructor(state: StateFile, fd: number, wrong: string[]) {
    super(state, fd);
    this.#fd = fd;
    this.#wrong = wrong;
  }

  override answer(untakenBytes: number, reply: Uint8Array | null): void {
    if (untakenBytes > MOST_BYTES) this.#wrong.push(`${untakenBytes} bytes are left in the socket`);
    super.answer(untakenBytes, reply);
  }

  override takes(peekedBytes: number): void {
    const offset = peekOffset(this.#fd);
    if (offset !== peekedBytes) this.#wrong.push(`${offset} bytes were looked at, and not ${peekedBytes}`);
    super.takes(peekedBytes);
  }
}

class Scene {
  readonly wrong: string[] = [];
  readonly state = StateFile.create();
  readonly theirs: number;
  readonly ours: number;
  readonly handled: number[] = [];
  connection: Connection;
  closed: Error | null | undefined;
  /** Answered no more: as if the process ended there. */
  stopsAt = Infinity;
  /** Whether messages have no reply. */
  silent = false;
  #hungUp = false;
  #got: Uint8Array = new Uint8Array(0);

  constructor(t: Test) {
    [this.ours, this.theirs] = socketPair();
    this.connection = this.next();
    t.teardown(() => {
      this.connection.close();
      this.hangUp();
      this.state.close();
    });
  }

  /** The process that goes on. */
  next(): Connection {
    const message = (at: Message): void => this.#message(at);
    this.connection = new Connection(
      this.ours,
      {
        mayRead: () => true,
        measure: (work) => work(),
        ready: () => this.handled.length < this.stopsAt,
        message,
        closed: (error) => (this.closed = error),
      },
      new CheckedOutbox(this.state, this.ours, this.wrong),
      NO_KEEPER,
    );
    return this.connection;
  }

  #message(message: Message): void {
    const { payload } = message;
    const n = new DataView(payload.buffer, payload.byteOffset).getUint32(0, true);
    this.handled.push(n);
    this.connection.answer(message, this.silent ? null : payload.slice(0, 8));
  }

  hangUp(): void {
    if (!this.#hungUp) closeFd(this.theirs);
    this.#hungUp = true;
  }

  say(bytes: Uint8Array, fds: number[] = []): void {
    if (send(this.theirs, bytes, 0, bytes.length, fds) !== bytes.length) throw new Error('it was not sent');
  }

  /** The numbers of the answers so far. */
  answers(): number[] {
    const scratch = new Uint8Array(2 ** 16);
    for (let got; (got = receive(this.theirs, scratch, 0, scratch.length, [])) > 0;) {
      this.#got = concat(this.#got, scratch.subarray(0, got));
    }
    const view = new DataView(this.#got.buffer, this.#got.byteOffset);
    return Array.from({ length: this.#got.length / REPLY_BYTES }, (_, n) =>
      view.getUint32(n * REPLY_BYTES + 12, true),
    );
  }

  /** Messages are answered, once and in order, and then taken. */
  async answered(t: Test, count: number): Promise<void> {
    await eventually(
      () => this.answers().length >= count,
      () => `${count} are answered, and not ${this.answers().length}`,
    );
    const expected = Array.from({ length: count }, (_, n) => n);
    t.same(this.answers(), expected);
    t.same(this.handled, expected);
    t.same(this.wrong, []);
    await eventually(
      () => allRead(this.theirs),
      () => 'their socket is empty',
    );
  }
}

void t.test('one, many, and long ones', async (t) => {
  const scene = new Scene(t);
  scene.say(numbered(0));
  await scene.answered(t, 1);
  for (let n = 1; n < MANY; n++) scene.say(numbered(n));
  await scene.answered(t, MANY);
  for (let n = MANY; n < MANY + 20; n++) scene.say(numbered(n, n % 3 === 0 ? LONG_BYTES : 8));
  await scene.answered(t, MANY + 20);
});

void t.test('one that comes in parts behind others that are not taken yet', async (t) => {
  const scene = new Scene(t);
  const last = numbered(2);
  scene.say(concat(numbered(0), numbered(1), last.subarray(0, 15)));
  await eventually(
    () => scene.handled.length === 2,
    () => 'two are there',
  );
  scene.say(last.subarray(15));
  await scene.answered(t, 3);
});

void t.test('descriptors do not stay in the socket', async (t) => {
  const scene = new Scene(t);
  scene.say(numbered(0));
  const fd = createEventFd();
  scene.say(numbered(1), [fd]);
  closeFd(fd);
  await eventually(
    () => scene.handled.length === 2,
    () => 'both are there',
    0,
  );
  t.ok(allRead(scene.theirs), 'they are taken with the message that they came with');
  await scene.answered(t, 2);
});

void t.test('a VMM that hangs up right behind a message', async (t) => {
  for (const silent of [false, true]) {
    const scene = new Scene(t);
    scene.silent = silent;
    scene.say(numbered(0));
    scene.hangUp();
    await eventually(
      () => scene.closed !== undefined,
      () => 'the end is seen',
    );
    t.equal(scene.closed, null);
    t.same(scene.handled, [0]);
  }
});

void t.test(
  'the next process goes on behind the last that was answered, wherever this one ended',
  async (t) => {
    for (let end = 0; end <= MANY; end += 7) {
      const scene = new Scene(t);
      scene.stopsAt = end;
      for (let n = 0; n < MANY; n++) scene.say(numbered(n));
      await eventually(
        () => scene.handled.length === Math.min(end, MANY),
        () => `${end} are there`,
        0,
      );
      scene.connection.letGo();
      scene.stopsAt = Infinity;
      scene.next();
      await scene.answered(t, MANY);
    }
  },
);

void t.test('one that has to wait does not keep those before it in the socket', async (t) => {
  const scene = new Scene(t);
  scene.stopsAt = 2;
  const [first, second, waits] = [numbered(0), numbered(1), numbered(2)];
  scene.say(concat(first, second, waits));
  await eventually(
    () => scene.state.untaken === 0 && scene.handled.length === 2,
    () => 'two are taken',
  );
  scene.stopsAt = Infinity;
  scene.connection.readOn();
  await scene.answered(t, 3);
});
