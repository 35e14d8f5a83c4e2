import { setTimeout as pause } from 'node:timers/promises';
import { createEventFd, EventWatch, signalEvent } from '../src/os/eventfd.js';
import { closeFd } from '../src/os/fd.js';
import { Mapping } from '../src/os/mapping.js';
import { createMemfd } from '../src/os/memfd.js';
import { Signal } from '../test/support/deadline.js';
import { PAGE_BYTES } from '../test/support/guest-ram.js';
import { Player } from './player.js';

/** The driver's end of bench/echo: eventfds and a word of shared memory, as a ring has them, and no device. */
export class EchoLine {
  readonly #player: Player;
  readonly #kickFd = createEventFd();
  readonly #callFd = createEventFd();
  readonly #memoryFd = createMemfd('echo', PAGE_BYTES);
  readonly #word = new Int32Array(Mapping.map(this.#memoryFd, 0, PAGE_BYTES).view(0, 4));
  readonly #called = new Signal();
  readonly #watch = new EventWatch(this.#callFd, () => this.#called.raise());
  #kicks = 0;

  private constructor(how: 'spins' | 'sleeps') {
    this.#player = new Player('echo.js', [how], [this.#kickFd, this.#callFd, this.#memoryFd]);
  }

  static async start(how: 'spins' | 'sleeps'): Promise<EchoLine> {
    const line = new EchoLine(how);
    line.kick();
    while (line.#unanswered) await pause(10);
    return line;
  }

  kick(): void {
    this.#kicks++;
    signalEvent(this.#kickFd);
  }

  spin(): void {
    while (this.#unanswered);
  }

  async sleep(): Promise<void> {
    for (;;) {
      const called = this.#called.next();
      if (!this.#unanswered) return;
      await called;
    }
  }

  async close(): Promise<void> {
    await this.#player.stop();
    this.#watch.close();
    for (const fd of [this.#kickFd, this.#callFd, this.#memoryFd]) closeFd(fd);
  }

  get #unanswered(): boolean {
    return Atomics.load(this.#word, 0) !== this.#kicks;
  }
}
