// The frontend's end of the backend channel. It treats CONFIG_CHANGE_MSG as QEMU does: one that arrives while the
// device is not started takes the VM down, which here is an entry in the list of violations.
import { closeFd } from '../../src/os/fd.js';
import { Signal } from './deadline.js';
import { WireSocket } from './wire-socket.js';
import {
  BACKEND_CONFIG_CHANGE_MSG,
  NEED_REPLY_FLAG,
  REPLY_FLAG,
  VERSION,
  u64s,
  type WireMessage,
} from './wire.js';

/**
 * Where the device was in its life: before it was ever started, started, while the stop was under way (a message
 * that was then already sent cannot be blamed on the backend), or after the stop was answered.
 */
export type Phase = 'new' | 'started' | 'stopping' | 'stopped';

export interface ConfigChange {
  phase: Phase;
  needReply: boolean;
}

export class BackendChannel {
  readonly configChanges: ConfigChange[] = [];
  /** Called for each CONFIG_CHANGE_MSG, after it was counted. */
  onConfigChange: (() => void) | null = null;
  /** When false, replies are held back until it is true again. */
  #answers = true;
  #unanswered: number[] = [];
  readonly #arrived = new Signal();
  readonly #socket: WireSocket;

  constructor(
    fd: number,
    private readonly phase: () => Phase,
    private readonly replyAcked: () => boolean,
    private readonly violate: (what: string) => void,
  ) {
    this.#socket = new WireSocket(fd, (message) => this.#take(message));
  }

  /** Resolves when the backend has dropped the channel. */
  get closed(): Promise<void> {
    return this.#socket.closed;
  }

  /** Holds back the replies to messages that need one, as a busy VMM does. */
  holdReplies(): void {
    this.#answers = false;
  }

  /** Sends what was held back, and answers at once from now on. */
  releaseReplies(): void {
    this.#answers = true;
    for (const request of this.#unanswered.splice(0)) this.#reply(request);
  }

  /** Resolves when `count` CONFIG_CHANGE_MSGs have come in all. */
  async waitConfigChanges(count: number, timeoutMs: number): Promise<void> {
    await this.#arrived.until(
      () => (this.configChanges.length >= count ? true : null),
      timeoutMs,
      () => `${this.configChanges.length} of ${count} config changes came`,
    );
  }

  /** Reads what is there now. */
  pump(): void {
    this.#socket.pump();
  }

  close(): void {
    this.#socket.close();
  }

  #take(message: WireMessage): void {
    for (const fd of message.fds) closeFd(fd);
    const needReply = (message.flags & NEED_REPLY_FLAG) !== 0;
    const name = `backend request ${message.request}`;
    if ((message.flags & ~NEED_REPLY_FLAG) !== VERSION) this.violate(`${name} has flags ${message.flags}`);
    if (needReply && !this.replyAcked()) this.violate(`${name} needs a reply without REPLY_ACK`);
    if (message.request === BACKEND_CONFIG_CHANGE_MSG) this.#takeConfigChange(message, needReply);
    else this.violate(`${name} is not one this VMM serves`);
    if (!needReply) return;
    this.#unanswered.push(message.request);
    if (this.#answers) this.releaseReplies();
  }

  #takeConfigChange(message: WireMessage, needReply: boolean): void {
    const phase = this.phase();
    if (message.payload.length > 0) this.violate('CONFIG_CHANGE_MSG has a payload');
    if (message.fds.length > 0) this.violate('CONFIG_CHANGE_MSG brought file descriptors');
    if (phase === 'new' || phase === 'stopped') {
      this.violate(`CONFIG_CHANGE_MSG while the device is ${phase}: QEMU dereferences NULL`);
    }
    if (this.#unanswered.length > 0) this.violate('a second CONFIG_CHANGE_MSG before the first was answered');
    this.configChanges.push({ phase, needReply });
    this.#arrived.raise();
    this.onConfigChange?.();
  }

  #reply(request: number): void {
    void this.#socket.sendMessage(request, VERSION | REPLY_FLAG, u64s(0n));
  }
}
