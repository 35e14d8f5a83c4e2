/**
 * The host's end of guest/agent.c: one request at a time, answered in order. A guest that starts anew says `ready`
 * and leaves what it was asked before unanswered.
 */
import type { Socket } from 'node:net';

export interface Answer {
  readonly status: number;
  readonly output: string;
}

interface Waiter<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

const READY = 'ready\n';

export class Agent {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #pending: Waiter<Answer> | null = null;
  #last: Promise<unknown> = Promise.resolve();
  #isReady = false;
  #starting: Waiter<void>[] = [];
  #gone: Error | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes: Buffer) => {
      this.#received = Buffer.concat([this.#received, bytes]);
      this.#parse();
    });
    // Whoever ends QEMU's process says why.
    socket.on('error', () => undefined);
  }

  /** Resolves once the guest's user space is up. */
  ready(): Promise<void> {
    if (this.#gone !== null) return Promise.reject(this.#gone);
    if (this.#isReady) return Promise.resolve();
    return new Promise((resolve, reject) => this.#starting.push({ resolve, reject }));
  }

  /** Sends `line` and `body` when all earlier requests are answered. */
  request(line: string, body = ''): Promise<Answer> {
    const answer = this.#last.then(
      () =>
        new Promise<Answer>((resolve, reject) => {
          if (this.#gone !== null) return reject(this.#gone);
          this.#pending = { resolve, reject };
          this.#socket.write(`${line}\n${body}`);
        }),
    );
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  /** Call when a guest that runs came from another QEMU: it says `ready` no more. */
  arrived(): void {
    this.#restarted();
  }

  /** Call before the guest starts anew: whatever it sends until it says `ready` is of no use. */
  expectRestart(): void {
    this.#isReady = false;
  }

  /** Rejects all who wait. */
  interrupt(error: Error): void {
    this.#pending?.reject(error);
    this.#pending = null;
    for (const waiter of this.#starting.splice(0)) waiter.reject(error);
  }

  /** As `interrupt`, and for all who come later. */
  end(error: Error): void {
    this.#gone ??= error;
    this.interrupt(error);
  }

  #parse(): void {
    for (;;) {
      const restart = this.#isReady && !this.#startsWithReady() ? -1 : this.#received.indexOf(READY);
      if (restart >= 0) {
        this.#received = this.#received.subarray(restart + READY.length);
        this.#restarted();
        continue;
      }
      if (!this.#isReady || this.#pending === null) return;
      const headEnd = this.#received.indexOf('\n');
      if (headEnd < 0) return;
      const [status, lenBytes] = this.#received.toString('latin1', 0, headEnd).split(' ').map(Number);
      if (status === undefined || lenBytes === undefined) {
        return this.end(new Error(`not an answer: ${this.#received.toString('latin1', 0, headEnd)}`));
      }
      const end = headEnd + 1 + lenBytes;
      if (this.#received.length < end) return;
      const answer = { status, output: this.#received.toString('utf8', headEnd + 1, end) };
      this.#received = this.#received.subarray(end);
      const pending = this.#pending;
      this.#pending = null;
      pending.resolve(answer);
    }
  }

  #startsWithReady(): boolean {
    return this.#received.toString('latin1', 0, READY.length) === READY;
  }

  #restarted(): void {
    this.#isReady = true;
    this.#pending?.reject(new Error('the guest started anew before it answered'));
    this.#pending = null;
    for (const waiter of this.#starting.splice(0)) waiter.resolve();
  }
}
