import { FrontendError } from '../memory/errors.js';
import { StateError, type StateFile } from '../memory/state-file.js';
import { allRead, consume, peekOffset, send, sendFile, setPeekOffset } from '../os/socket.js';

/** Builds before 0.2 set SO_PEEK_OFF to so much more than what they were about to take, and looked from -1 on. */
const OLDER_TAKES = 2 ** 20;

/** What was sent and not taken yet may be so much; a peer that asks without reading is cut off. */
const MAX_BACKLOG_BYTES = 64 * 1024;

/** Messages on their way to a socket. */
export interface Outbox {
  /** Comes before each message is acted upon: whoever asks again has read, by now, what it was answered. */
  makeRoom(fd: number): void;
  /**
   * A message was acted upon, with this reply, if any. `untakenBytes`: its bytes and those of the messages before it that
   * were not taken from their socket yet. Throws FrontendError when the peer does not read.
   */
  answer(untakenBytes: number, reply: Uint8Array | null): void;
  /** These are about to be taken from the socket, of which `peekedBytes` were looked at. */
  takes(peekedBytes: number): void;
  /** They are not in the socket any more. */
  taken(): void;
  /** Sends what can be sent; false when something is left. */
  flush(fd: number): boolean;
}

/** One that is gone with the process. */
export class PlainOutbox implements Outbox {
  readonly #backlog: Uint8Array[] = [];
  #backlogBytes = 0;

  /** Throws FrontendError when the peer does not read. */
  add(message: Uint8Array): void {
    this.#backlog.push(message);
    this.#backlogBytes += message.length;
    if (this.#backlogBytes > MAX_BACKLOG_BYTES) throw new FrontendError('frontend does not read its replies');
  }

  makeRoom(): void {
    // There is as much as was not sent yet.
  }

  answer(_: number, reply: Uint8Array | null): void {
    if (reply !== null) this.add(reply);
  }

  takes(): void {
    // Nobody comes after us who might take them once more.
  }

  taken(): void {
    // As above.
  }

  flush(fd: number): boolean {
    for (let first = this.#backlog[0]; first !== undefined; first = this.#backlog[0]) {
      const sent = send(fd, first, 0, first.length, []);
      if (sent < 0) return false;
      this.#backlogBytes -= sent;
      this.#backlog.splice(0, 1, ...(sent < first.length ? [first.subarray(sent)] : []));
    }
    return true;
  }
}

/**
 * One from which the next process goes on: each message is answered once, wherever this one ends. What it cannot
 * write down in time (that bytes left the socket, that others went out) the kernel counts.
 */
export class KeptOutbox implements Outbox {
  readonly #state: StateFile;

  /** `fd`: the socket, as another process may have left it. */
  constructor(state: StateFile, fd: number) {
    this.#state = state;
    if (state.untaken > 0) {
      consume(fd, this.#untaken(fd));
      state.taken();
    }
  }

  /** What is still in the socket of messages that were acted upon. It stays known, should this process end as well. */
  #untaken(fd: number): number {
    const { untaken, taking } = this.#state;
    const offset = peekOffset(fd) ?? -1;
    if (offset >= OLDER_TAKES) return rest(offset - OLDER_TAKES, untaken);
    if (taking !== null) return rest(offset - (taking - untaken), untaken);
    setPeekOffset(fd, untaken);
    this.#state.takes(untaken);
    return untaken;
  }

  makeRoom(fd: number): void {
    if (this.#state.outboxFills && this.#state.unsentBytes === 0 && allRead(fd)) this.#state.rewind();
  }

  answer(untakenBytes: number, reply: Uint8Array | null): void {
    if (!this.#state.commit(untakenBytes, reply))
      throw new FrontendError('frontend does not read its replies');
  }

  takes(peekedBytes: number): void {
    this.#state.takes(peekedBytes);
  }

  taken(): void {
    this.#state.taken();
  }

  flush(fd: number): boolean {
    for (let rest = this.#state.unsentBytes; rest > 0;) {
      const sent = sendFile(fd, this.#state.fd, rest);
      if (sent < 0) return false;
      this.#state.sent(sent);
      rest -= sent;
    }
    return true;
  }
}

/** Throws StateError when the socket cannot have `lenBytes` of messages of `wholeBytes` in it still. */
function rest(lenBytes: number, wholeBytes: number): number {
  if (lenBytes >= 0 && lenBytes <= wholeBytes) return lenBytes;
  throw new StateError(`${lenBytes} bytes left of messages of ${wholeBytes}`);
}
