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
import { SystemError } from '../os/errors.js';
import { closeFd } from '../os/fd.js';
import { Poller, READABLE, WRITABLE } from '../os/poller.js';
import { receive, send } from '../os/socket.js';
import { FrontendError } from '../memory/errors.js';
import { OwnedFds, type FdBag } from './fd-bag.js';

/** Messages handled before other VMs get their turn. */
const MESSAGES_PER_TURN = 32;
/** Replies that a frontend has not read yet; one that asks without reading is cut off. */
const MAX_BACKLOG_BYTES = 64 * 1024;

export interface Message {
  request: number;
  needReply: boolean;
  isReply: boolean;
  /** Valid until the handler returns. */
  payload: Uint8Array;
  /** File descriptors that came along; what the handler does not take is closed when it returns. */
  fds: FdBag;
}

export interface ConnectionHandler {
  /** False: this request has to wait, and all after it, until resume() is called. */
  ready(request: number): boolean;
  message(message: Message): void;
  /** The peer closed, or the stream stopped being vhost-user (`error` says how). Called once; the fd is closed. */
  closed(error: Error | null): void;
}

/**
 * A stream of vhost-user messages with file descriptors, on one socket. It reads a header and then exactly that
 * message's payload, so that file descriptors always belong to the message they arrived with.
 */
export class Connection {
  readonly #fd: number;
  readonly #poller: Poller;
  readonly #handler: ConnectionHandler;
  readonly #buffer = new Uint8Array(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  readonly #fds: number[] = [];
  #filled = 0;
  #wanted = HEADER_BYTES;
  #backlog: Uint8Array[] = [];
  #backlogBytes = 0;
  #open = true;
  #waiting = false;
  #events = READABLE;

  /** Owns `fd` from then on. */
  constructor(fd: number, handler: ConnectionHandler) {
    this.#fd = fd;
    this.#handler = handler;
    this.#poller = new Poller(fd, READABLE, (events, error) => this.#ready(events, error));
  }

  get open(): boolean {
    return this.#open;
  }

  send(request: number, flags: number, payload: Uint8Array): void {
    if (!this.#open) return;
    this.#backlog.push(encodeMessage(request, flags, payload));
    this.#backlogBytes += HEADER_BYTES + payload.length;
    this.#guard(() => {
      this.#writeBacklog();
    });
  }

  reply(message: Message, payload: Uint8Array): void {
    this.send(message.request, FLAG_REPLY, payload);
  }

  /** Closes without telling the handler. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#poller.close();
    for (const fd of this.#fds.splice(0)) closeFd(fd);
    closeFd(this.#fd);
  }

  /** Goes on with the request that had to wait. */
  resume(): void {
    if (!this.#open || !this.#waiting) return;
    this.#waiting = false;
    this.#guard(() => {
      this.#watch();
      this.#read();
    });
  }

  #ready(events: number, error: Error | null): void {
    this.#guard(() => {
      if (error !== null) throw error;
      if ((events & WRITABLE) !== 0) this.#writeBacklog();
      if ((events & READABLE) !== 0 && !this.#waiting) this.#read();
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
    for (let turn = 0; turn < MESSAGES_PER_TURN && this.#open;) {
      if (this.#filled < this.#wanted && !this.#receive()) return;
      const header = decodeHeader(this.#buffer);
      if (this.#filled === HEADER_BYTES && this.#wanted === HEADER_BYTES) {
        checkHeader(header);
        this.#wanted += header.payloadBytes;
      }
      if (this.#filled < this.#wanted) continue;
      if (!this.#handler.ready(header.request)) {
        this.#waiting = true;
        this.#watch();
        return;
      }
      turn++;
      this.#dispatch(header.request, header.flags);
    }
  }

  /** Part of a header, or of the payload after it; false when there is nothing to go on with. */
  #receive(): boolean {
    const got = receive(this.#fd, this.#buffer, this.#filled, this.#wanted - this.#filled, this.#fds);
    if (got < 0) return false;
    if (got === 0) {
      const truncated = this.#filled > 0;
      this.#fail(truncated ? new FrontendError('connection ended in the middle of a message') : null);
      return false;
    }
    if (this.#fds.length > MAX_FDS) throw new FrontendError(`more than ${MAX_FDS} fds in one message`);
    this.#filled += got;
    return this.#filled === this.#wanted;
  }

  #dispatch(request: number, flags: number): void {
    const payload = this.#buffer.subarray(HEADER_BYTES, this.#wanted);
    const fds = new OwnedFds(this.#fds.splice(0));
    this.#filled = 0;
    this.#wanted = HEADER_BYTES;
    try {
      this.#handler.message({
        request,
        payload,
        fds,
        needReply: (flags & FLAG_NEED_REPLY) !== 0,
        isReply: (flags & FLAG_REPLY) !== 0,
      });
    } finally {
      fds.closeRest();
    }
  }

  #writeBacklog(): void {
    for (let first = this.#backlog[0]; first !== undefined; first = this.#backlog[0]) {
      const sent = send(this.#fd, first, 0, first.length, []);
      if (sent < 0) break;
      this.#backlogBytes -= sent;
      if (sent === first.length) this.#backlog.shift();
      else this.#backlog[0] = first.subarray(sent);
    }
    if (this.#backlogBytes > MAX_BACKLOG_BYTES) throw new FrontendError('frontend does not read its replies');
    this.#watch();
  }

  #watch(): void {
    const events = (this.#waiting ? 0 : READABLE) | (this.#backlog.length > 0 ? WRITABLE : 0);
    if (events === this.#events) return;
    this.#events = events;
    this.#poller.setEvents(events);
  }
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
