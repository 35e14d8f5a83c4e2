/** QEMU's machine protocol (docs/interop/qmp-spec): JSON lines; answers carry the id of their command. */
import type { Socket } from 'node:net';

export interface QmpEvent {
  readonly event: string;
  readonly data: unknown;
}

interface Message {
  readonly QMP?: unknown;
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: unknown;
}

interface Waiter {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Qmp {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Waiter>();
  readonly #onEvent: (event: QmpEvent) => void;
  #lastId = 0;
  #text = '';
  #gone: Error | null = null;

  constructor(socket: Socket, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      const lines = (this.#text + text).split('\n');
      this.#text = lines.pop() ?? '';
      for (const line of lines) this.#accept(JSON.parse(line) as Message);
    });
    // Whoever ends QEMU's process says why.
    socket.on('error', () => undefined);
  }

  /** What the command returned. Throws QEMU's own words when it refused. */
  execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    if (this.#gone !== null) return Promise.reject(this.#gone);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, {
        resolve,
        reject: (error) => reject(new Error(`${command}: ${error.message}`)),
      });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  /** Rejects all who wait, now and later. */
  end(error: Error): void {
    this.#gone ??= error;
    for (const waiter of this.#pending.values()) waiter.reject(error);
    this.#pending.clear();
  }

  #accept(message: Message): void {
    if (message.event !== undefined) {
      this.#onEvent({ event: message.event, data: message.data });
    } else if (message.id !== undefined) {
      const waiter = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      if (message.error !== undefined) waiter?.reject(new Error(message.error.desc));
      else waiter?.resolve(message.return);
    }
  }
}
