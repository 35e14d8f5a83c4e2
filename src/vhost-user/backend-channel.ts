import { encodeMessage, FLAG_NEED_REPLY } from '../../protocol/vhost-user/header.js';
import { BackendRequest } from '../../protocol/vhost-user/requests.js';
import type { FdKeeper } from '../os/fd-keeper.js';
import { Connection, type Message } from './connection.js';
import { PlainOutbox } from './outbox.js';
import type { Seat } from './turns.js';

/**
 * The socket for messages that the backend begins (SET_BACKEND_REQ_FD), of which it sends one kind:
 * CONFIG_CHANGE_MSG. At most one is in flight; changes meanwhile become one more after it.
 *
 * QEMU dereferences a null pointer when the message finds its device not started, so it is sent only between
 * open() and hold().
 */
export class BackendChannel {
  readonly fd: number;
  readonly #connection: Connection;
  readonly #outbox = new PlainOutbox();
  readonly #acknowledged: boolean;
  readonly #onSent: () => void;
  #allowed = false;
  #inFlight = false;
  #changed = false;

  /**
   * Owns `fd`. `acknowledged`: REPLY_ACK was negotiated, so each message is answered. `onClosed`: the frontend closed it (null), or
   * broke its rules; a new target is then only seen when the driver reads it by itself.
   */
  constructor(
    fd: number,
    acknowledged: boolean,
    keeper: FdKeeper,
    seat: Seat,
    onSent: () => void,
    onClosed: (error: Error | null) => void,
  ) {
    this.fd = fd;
    this.#acknowledged = acknowledged;
    this.#onSent = onSent;
    const handler = {
      mayRead: () => seat.may(this.#readOn),
      measure: (work: () => void) => seat.measure(work),
      ready: () => true,
      message: (message: Message) => {
        seat.chargeMessage();
        this.#answered(message);
      },
      closed: onClosed,
    };
    this.#connection = new Connection(fd, handler, this.#outbox, keeper);
  }

  configChanged(): void {
    this.#changed = true;
    this.#trySend();
  }

  /** The device is started: messages may go out. */
  open(): void {
    this.#allowed = true;
    this.#trySend();
  }

  /** The device is about to stop: nothing goes out until it starts again. */
  hold(): void {
    this.#allowed = false;
  }

  /** Stops watching an fd that stays open. */
  letGo(): void {
    this.#connection.letGo();
  }

  close(): void {
    this.#connection.close();
  }

  readonly #readOn = (): void => this.#connection.readOn();

  #answered(message: Message): void {
    if (!message.isReply || message.request !== BackendRequest.CONFIG_CHANGE_MSG) return;
    this.#inFlight = false;
    this.#trySend();
  }

  #trySend(): void {
    if (!this.#allowed || !this.#changed || this.#inFlight || !this.#connection.open) return;
    this.#changed = false;
    this.#inFlight = this.#acknowledged;
    const flags = this.#acknowledged ? FLAG_NEED_REPLY : 0;
    const message = encodeMessage(BackendRequest.CONFIG_CHANGE_MSG, flags, new Uint8Array(0));
    this.#connection.send(() => this.#outbox.add(message));
    this.#onSent();
  }
}
