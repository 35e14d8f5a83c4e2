/**
 * QMP, QEMU's machine protocol, as a client. src/daemon calls `connectQmp` (this file) for a socket and then `findBalloon`
 * (qemu) for what QEMU says of its VM; src/vm makes a device of that. The peer may be any program: an object has a bound (protocol/qmp/objects.ts), so have commands without an answer, and a peer that sends
 * without end waits for its turn. No command goes out of band: that capability is not asked for.
 */
import { VmmError } from '../../protocol/adopted.js';
import { decodeMessage, encodeCommand, type Json, type QmpMessage } from '../../protocol/qmp/messages.js';
import { QmpObjects } from '../../protocol/qmp/objects.js';
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import { Poller, READABLE, WRITABLE } from '../os/poller.js';
import { connectUnix, peerPid, receive, send } from '../os/socket.js';

/** A QEMU that is busy with a snapshot answers after seconds. */
const ANSWER_MS = 10_000;
/** A device has a handful under way. */
const MAX_UNANSWERED = 32;
/** Of the event loop, for what one peer sends. */
const BUSY_MS = 20;
const WINDOW_MS = 1000;
/** Of its own: an empty part of a Buffer keeps the 8 KiB that it is a part of. */
const NOTHING = new Uint8Array(0);
/** For what one client reads at a time: it is taken before another one reads. */
const scratch = new Uint8Array(64 * 1024);

/** The ways in which a connection calls back. */
interface QmpObserver {
  event(name: string, data: Json): void;
  /** The peer sends so much that it waits for its turns. */
  throttled(): void;
  /** Called once; null: the peer closed the connection in the midst of nothing. */
  closed(error: VmmError | null): void;
}

interface Unanswered {
  resolve(value: unknown): void;
  reject(error: VmmError): void;
  readonly timer: NodeJS.Timeout;
}

export class QmpClient {
  /** The process that listens on the socket; 0 where it cannot be told. */
  readonly pid: number;
  readonly path: string;
  readonly #fd: number;
  readonly #poller: Poller;
  readonly #objects = new QmpObjects();
  /** Commands of this turn, which go out together: the peer is woken once for them. */
  #commands = '';
  /** Those that the peer has yet to take. */
  #outbox: Uint8Array = NOTHING;
  readonly #unanswered = new Map<number, Unanswered>();
  readonly #answerMs: number;
  #observer: QmpObserver | null = null;
  #lastId = 0;
  readonly #greeting: Promise<void>;
  #greet: () => void = () => undefined;
  #miss: (error: VmmError) => void = () => undefined;
  #ended = false;
  #windowAt = performance.now();
  #busyMs = 0;
  #wait: NodeJS.Timeout | null = null;
  /** QEMU's version; empty until it greeted. */
  version = '';

  /** Owns the socket `fd`, which is connected to that at `path`. */
  constructor(fd: number, path: string, answerMs = ANSWER_MS) {
    this.pid = peerPid(fd);
    this.path = path;
    this.#answerMs = answerMs;
    this.#greeting = new Promise((resolve, reject) => {
      this.#greet = resolve;
      this.#miss = reject;
    });
    this.#greeting.catch(() => undefined);
    this.#fd = fd;
    this.#poller = new Poller(fd, READABLE, (events, error) => this.#ready(events, error));
  }

  get throttled(): boolean {
    return this.#wait !== null;
  }

  /** Whom events go to, and the end of the connection. */
  listen(observer: QmpObserver): void {
    this.#observer = observer;
    // It ended before anybody listened.
    if (this.#ended) queueMicrotask(() => observer.closed(null));
  }

  /**
   * Resolves when QEMU greeted and takes commands. Until the client before this one leaves, QEMU says nothing: the connection
   * waits in line, which costs QEMU nothing. Rejects with VmmError where the peer is no QEMU.
   */
  async greeted(): Promise<void> {
    await this.#greeting;
    await this.execute('qmp_capabilities');
  }

  /** What the command returned. Rejects with VmmError: QEMU's own words, or that it does not answer. */
  execute(command: string, args: Json = {}): Promise<unknown> {
    if (this.#ended) return Promise.reject(new VmmError('the connection ended'));
    if (this.#unanswered.size >= MAX_UNANSWERED)
      return Promise.reject(new VmmError(`QEMU owes ${MAX_UNANSWERED} answers`));
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const late = (): void => {
        this.#unanswered.delete(id);
        reject(new VmmError(`QEMU does not answer ${command} within ${this.#answerMs / 1000} s`));
      };
      this.#unanswered.set(id, { resolve, reject, timer: setTimeout(late, this.#answerMs).unref() });
      if (this.#commands === '') queueMicrotask(() => this.#flush());
      this.#commands += encodeCommand(id, command, args);
    });
  }

  close(): void {
    this.#end(null);
  }

  #ready(events: number, error: SystemError | null): void {
    if (error !== null) {
      this.#end(null);
      return;
    }
    const begun = performance.now();
    this.#try(() => {
      if ((events & WRITABLE) !== 0) this.#send();
      if ((events & READABLE) !== 0) this.#read();
    });
    this.#charge(begun);
  }

  #read(): void {
    const fds: number[] = [];
    const got = receive(this.#fd, scratch, 0, scratch.length, fds);
    for (const fd of fds) closeFd(fd);
    if (got === 0) this.#end(null);
    if (got <= 0) return;
    for (const text of this.#objects.push(scratch.subarray(0, got))) {
      if (this.#ended) return;
      this.#take(decodeMessage(text));
    }
  }

  #flush(): void {
    const commands = Buffer.from(this.#commands);
    this.#commands = '';
    if (this.#ended) return;
    this.#outbox = this.#outbox.length === 0 ? commands : Buffer.concat([this.#outbox, commands]);
    this.#try(() => this.#send());
  }

  /** Sends as much as the peer takes now; commands have a bound, and so has what waits. */
  #send(): void {
    if (this.#outbox.length > 0) {
      const sent = send(this.#fd, this.#outbox, 0, this.#outbox.length, []);
      this.#outbox = sent === this.#outbox.length ? NOTHING : this.#outbox.subarray(Math.max(0, sent));
    }
    this.#watch();
  }

  #watch(): void {
    const reads = this.#wait === null ? READABLE : 0;
    this.#poller.setEvents(reads | (this.#outbox.length > 0 ? WRITABLE : 0));
  }

  /** A peer that breaks the protocol, or is gone, ends the connection. */
  #try(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (error instanceof VmmError) this.#end(error);
      else if (error instanceof SystemError) this.#end(null);
      else throw error;
    }
  }

  #take(message: QmpMessage): void {
    if (this.version === '') {
      if (message.kind !== 'greeting') throw new VmmError('the peer does not greet as QEMU does');
      this.version = message.version;
      this.#greet();
      return;
    }
    if (message.kind === 'event') this.#observer?.event(message.name, message.data);
    if (message.kind !== 'answer' && message.kind !== 'refusal') return;
    // An answer that came too late has nobody who waits for it.
    const id = typeof message.id === 'number' ? message.id : -1;
    const waiting = this.#unanswered.get(id);
    this.#unanswered.delete(id);
    clearTimeout(waiting?.timer);
    if (message.kind === 'answer') waiting?.resolve(message.value);
    else waiting?.reject(message.error);
  }

  /** A peer has a share of the event loop, and is read no further when it had that. */
  #charge(begun: number): void {
    const now = performance.now();
    if (now - this.#windowAt > WINDOW_MS) {
      this.#windowAt = now;
      this.#busyMs = 0;
    }
    this.#busyMs += now - begun;
    if (this.#busyMs < BUSY_MS || this.#ended) return;
    if (this.#wait === null) this.#observer?.throttled();
    this.#wait ??= setTimeout(() => {
      this.#wait = null;
      this.#watch();
    }, WINDOW_MS).unref();
    this.#watch();
  }

  #end(error: VmmError | null): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#wait !== null) clearTimeout(this.#wait);
    this.#poller.close();
    closeFd(this.#fd);
    const reason = error ?? new VmmError('the connection ended');
    this.#miss(reason);
    for (const waiting of this.#unanswered.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(reason);
    }
    this.#unanswered.clear();
    this.#observer?.closed(error);
  }
}

/** Connects to a socket that QEMU listens on, without waiting. Throws SystemError; EAGAIN: several clients wait there already. */
export function connectQmp(path: string, answerMs?: number): QmpClient {
  return new QmpClient(connectUnix(path), path, answerMs);
}
