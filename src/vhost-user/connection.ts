import {
  decodeHeader,
  encodeMessage,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FLAG_VERSION_MASK,
  HEADER_BYTES,
  MAX_FDS,
  MAX_PAYLOAD_BYTES,
  VERSION,
  type Header,
} from '../../protocol/vhost-user/header.js';
import { FrontendError } from '../memory/errors.js';
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { Poller, READABLE, WRITABLE } from '../os/poller.js';
import { consume, hungUp, peek, setPeekOffset } from '../os/socket.js';
import { OwnedFds, type FdBag } from './fd-bag.js';
import type { Outbox } from './outbox.js';

/** For how long messages are handled before other VMs get their turn. */
const TURN_MS = 0.5;
/** How long until the rest of a message is looked for: bytes that are left in a socket wake up whoever watches it. */
const REST_MS = 5;
/**
 * Messages that were acted upon are taken from the socket together: when there are so many bytes of them, or after so long.
 * A VMM may have more than that on its way (SO_SNDBUF, socket(7)), and one that may not waits no longer.
 */
const UNTAKEN_BYTES = 1024;
const UNTAKEN_MS = 20;

export interface Message {
  request: number;
  needReply: boolean;
  isReply: boolean;
  /** Valid until the handler returns. */
  payload: Uint8Array;
  /** File descriptors that came along; what the handler does not take is closed when it returns. */
  fds: FdBag;
}

interface ConnectionHandler {
  /** False: nothing is read until readOn() is called. */
  mayRead(): boolean;
  /** Does the reading, which may cost more than what is read. */
  measure(work: () => void): void;
  /** False: this request has to wait, and all after it, until readOn() is called. The payload is valid until it returns. */
  ready(request: number, payload: Uint8Array): boolean;
  /** To be answered by answer(), once, before what follows from it is begun. */
  message(message: Message): void;
  /** The peer closed, or the stream stopped being vhost-user (`error` says how). Called once; the fd is closed. */
  closed(error: Error | null): void;
}

/**
 * A stream of vhost-user messages with file descriptors, on one socket. A message stays in the socket until it was
 * acted upon, so that one that this process does not get to is there for the next; what has to be known of it
 * meanwhile is the outbox's. The socket is watched for edges, as it is seldom empty: after each, either it is looked at
 * until there is nothing new, or messages are to be taken soon, and it is then.
 */
export class Connection {
  readonly #fd: number;
  readonly #poller: Poller;
  readonly #handler: ConnectionHandler;
  readonly #outbox: Outbox;
  readonly #keeper: FdKeeper;
  /** A message that is there as a whole, while it waits. */
  #next: { header: Header; fds: number[] } | null = null;
  /** What was looked at, from `#at` to `#end`, and not taken yet: the message at hand and those after it. */
  readonly #buffer = new Uint8Array(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  #at = 0;
  #end = 0;
  /** Descriptors that came with the bytes before `end`, and belong to the message that these are part of. */
  #came: { fd: number; end: number }[] = [];
  #rest: NodeJS.Timeout | null = null;
  /** Bytes of messages before `#at` that were acted upon and are still in the socket. */
  #untaken = 0;
  #taking: NodeJS.Timeout | null = null;
  #again: NodeJS.Immediate | null = null;
  #blocked = false;
  #open = true;
  #waiting: boolean;
  #events: number;

  /** Owns `fd` and `outbox` from then on. `waiting`: nothing is read before readOn(). */
  constructor(fd: number, handler: ConnectionHandler, outbox: Outbox, keeper: FdKeeper, waiting = false) {
    setPeekOffset(fd, 0);
    this.#fd = fd;
    this.#handler = handler;
    this.#outbox = outbox;
    this.#keeper = keeper;
    this.#waiting = waiting;
    this.#events = waiting ? 0 : READABLE;
    this.#poller = new Poller(fd, this.#events, (events, error) => this.#ready(events, error), true);
  }

  get open(): boolean {
    return this.#open;
  }

  /** Sends what `add` puts into the outbox without having been asked for. */
  send(add: () => void): void {
    if (!this.#open) return;
    this.#guard(() => {
      add();
      this.#flush();
    });
  }

  /** Of the message at hand, which is at hand no more. Null: it has no reply. */
  answer({ request }: Message, payload: Uint8Array | null): void {
    if (!this.#open || this.#next === null) return;
    const lenBytes = HEADER_BYTES + this.#next.header.payloadBytes;
    const reply = payload === null ? null : encodeMessage(request, FLAG_REPLY, payload);
    this.#next = null;
    this.#at += lenBytes;
    this.#outbox.answer(this.#untaken + lenBytes, reply);
    this.#untaken += lenBytes;
    this.#flush();
  }

  /** Closes without telling the handler. */
  close(): void {
    if (!this.#open) return;
    this.letGo();
    closeFd(this.#fd);
  }

  /** Stops watching an fd that stays open. */
  letGo(): void {
    this.#open = false;
    this.#poller.close();
    if (this.#rest !== null) clearTimeout(this.#rest);
    if (this.#taking !== null) clearTimeout(this.#taking);
    if (this.#again !== null) clearImmediate(this.#again);
    closeAll(this.#next?.fds ?? []);
    this.#forget();
  }

  /** Goes on with the request that had to wait. */
  readOn(): void {
    if (!this.#open || !this.#waiting) return;
    this.#waiting = false;
    this.#guard(() => {
      this.#flush();
      this.#read();
    });
  }

  #ready(events: number, error: Error | null): void {
    this.#guard(() => {
      if (error !== null) throw error;
      if ((events & WRITABLE) !== 0) this.#flush();
      if ((events & READABLE) === 0) return;
      if (this.#waiting) this.#watch();
      else this.#read();
    });
  }

  /** Whatever goes wrong ends this connection and nothing else. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fail(isHangUp(error) ? null : error instanceof Error ? error : new Error(String(error)));
    }
  }

  #fail(error: Error | null): void {
    if (!this.#open) return;
    this.close();
    this.#handler.closed(error);
  }

  #read(): void {
    if (this.#handler.mayRead()) this.#handler.measure(this.#readSome);
    else this.#wait();
  }

  readonly #readSome = (): void => {
    for (const end = performance.now() + TURN_MS; this.#open && performance.now() < end;) {
      this.#next ??= this.#look();
      if (this.#next === null) return;
      const again = (): void => this.readOn();
      const { header } = this.#next;
      if (!this.#keeper.whenSafe(again) || !this.#handler.ready(header.request, this.#payload(header))) {
        this.#wait();
        return;
      }
      this.#outbox.makeRoom(this.#fd);
      // Descriptors count for the VMM as long as their message is in the socket.
      const most = this.#next.fds.length > 0 ? 0 : UNTAKEN_BYTES;
      if (this.#untaken + HEADER_BYTES + header.payloadBytes > UNTAKEN_BYTES) this.#take();
      this.#dispatch(header, this.#next.fds.splice(0));
      if (!this.open) return;
      if (this.#untaken > most) this.#take();
      else this.#taking ??= setTimeout(() => this.#takeInTime(), UNTAKEN_MS);
      // Another look would find nothing, most of the time, and there is one when these are taken.
      if (this.#at === this.#end && this.#untaken > 0) return;
    }
    if (this.#open) this.#again ??= setImmediate(() => this.#goOn());
  };

  #goOn(): void {
    this.#again = null;
    if (!this.#waiting && this.#rest === null) this.#guard(() => this.#read());
  }

  #takeInTime(): void {
    this.#taking = null;
    this.#guard(() => {
      this.#take();
      if (!this.#waiting && this.#rest === null) this.#read();
    });
  }

  /** Takes the messages that were acted upon from the socket, for good. */
  #take(): void {
    if (this.#untaken === 0) return;
    this.#outbox.takes(this.#untaken + this.#end - this.#at);
    consume(this.#fd, this.#untaken);
    this.#outbox.taken();
    this.#untaken = 0;
  }

  /** Most waits end before new events are looked at, so that it is watched until the next one. */
  #wait(): void {
    this.#waiting = true;
  }

  /** The next message, when all of it has come. */
  #look(): { header: Header; fds: number[] } | null {
    for (;;) {
      const there = this.#end - this.#at;
      const header = there < HEADER_BYTES ? null : decodeHeader(this.#buffer.subarray(this.#at));
      if (header !== null) checkHeader(header);
      const wanted = HEADER_BYTES + (header?.payloadBytes ?? 0);
      if (header !== null && there >= wanted) return { header, fds: this.#fdsBefore(this.#at + wanted) };
      if (this.#came.length > MAX_FDS) throw tooManyFds();
      const got = this.#lookFurther();
      if (got > 0) continue;
      if (there > 0) this.#awaitRest();
      else if (got === 0) this.#fail(null);
      return null;
    }
  }

  /** Looks at bytes behind those in the buffer; returns their number, 0 at the end of the stream, -1 when there are none yet. */
  #lookFurther(): number {
    this.#buffer.copyWithin(0, this.#at, this.#end);
    for (const came of this.#came) came.end -= this.#at;
    this.#end -= this.#at;
    this.#at = 0;
    const fds: number[] = [];
    const got = peek(this.#fd, this.#end, this.#buffer, fds);
    this.#end += Math.max(0, got);
    for (const fd of fds) this.#came.push({ fd, end: this.#end });
    return got;
  }

  /** Descriptors of the message that ends there. */
  #fdsBefore(end: number): number[] {
    const fds = this.#came.filter((came) => came.end <= end).map(({ fd }) => fd);
    if (fds.length > MAX_FDS) throw tooManyFds();
    this.#came = this.#came.slice(fds.length);
    for (const fd of fds) this.#keeper.keep(fd);
    return fds;
  }

  /** What was looked at is looked at anew. */
  #forget(): void {
    for (const { fd } of this.#came.splice(0)) closeFd(fd);
    this.#at = 0;
    this.#end = 0;
  }

  #payload({ payloadBytes }: Header): Uint8Array {
    return this.#buffer.subarray(this.#at + HEADER_BYTES, this.#at + HEADER_BYTES + payloadBytes);
  }

  #awaitRest(): void {
    if (hungUp(this.#fd)) throw new FrontendError('connection ended in the middle of a message');
    this.#take();
    this.#forget();
    setPeekOffset(this.#fd, 0);
    this.#rest ??= setTimeout(() => {
      this.#rest = null;
      this.#guard(() => {
        this.#watch();
        if (!this.#waiting) this.#read();
      });
    }, REST_MS);
    this.#watch();
  }

  #dispatch(header: Header, received: number[]): void {
    const { request, flags } = header;
    const payload = this.#payload(header);
    const fds = new OwnedFds(received);
    const message = {
      request,
      payload,
      fds,
      needReply: (flags & FLAG_NEED_REPLY) !== 0,
      isReply: (flags & FLAG_REPLY) !== 0,
    };
    try {
      this.#handler.message(message);
      if (this.#next !== null) this.answer(message, null);
    } finally {
      fds.closeRest();
    }
  }

  #flush(): void {
    this.#blocked = !this.#outbox.flush(this.#fd);
    this.#watch();
  }

  #watch(): void {
    const reads = !this.#waiting && this.#rest === null;
    const events = (reads ? READABLE : 0) | (this.#blocked ? WRITABLE : 0);
    if (events === this.#events || !this.#open) return;
    this.#events = events;
    this.#poller.setEvents(events);
  }
}

function closeAll(fds: number[]): void {
  for (const fd of fds.splice(0)) closeFd(fd);
}

function tooManyFds(): FrontendError {
  return new FrontendError(`more than ${MAX_FDS} fds in one message`);
}

/** A peer that was killed may leave replies unread. */
function isHangUp(error: unknown): boolean {
  return error instanceof SystemError && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
}

function checkHeader({ flags, payloadBytes }: Header): void {
  const version = flags & FLAG_VERSION_MASK;
  if (version !== VERSION) throw new FrontendError(`message of protocol version ${version}, not ${VERSION}`);
  if (payloadBytes > MAX_PAYLOAD_BYTES) {
    throw new FrontendError(`message of ${payloadBytes} bytes, more than ${MAX_PAYLOAD_BYTES}`);
  }
}
