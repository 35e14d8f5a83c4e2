import { VmmError } from '../../protocol/adopted.js';
import { SILENT } from './away.js';

/** libvirt waits for a QEMU that hangs as long as that hangs. */
const ANSWER_MS = 10_000;

/**
 * Calls that go to libvirt one after another. One that is overdue still takes a thread of libvirt-dbus, so no further one goes
 * out until it is answered, and none that its caller gave up.
 */
export class CallLine {
  readonly #answerMs: number;
  #last: Promise<unknown> = Promise.resolve();
  /** The name of the call that is overdue. */
  #overdue: string | null = null;

  constructor(answerMs = ANSWER_MS) {
    this.#answerMs = answerMs;
  }

  /** What the call resolves with. Rejects with VmmError, also where libvirt does not answer. */
  run<T>(name: string, call: () => Promise<T>): Promise<T> {
    const overdue = this.#overdue;
    if (overdue !== null) return Promise.reject(unanswered(overdue, this.#answerMs));
    let late = false;
    const answer = this.#last.then(() => {
      if (late) throw unanswered(name, this.#answerMs);
      return call();
    });
    this.#last = answer.catch(() => undefined);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        late = true;
        this.#overdue ??= name;
        reject(unanswered(this.#overdue, this.#answerMs));
      }, this.#answerMs).unref();
      const settle = (): void => {
        clearTimeout(timer);
        if (late) this.#overdue = null;
      };
      answer.then(
        (value) => {
          settle();
          resolve(value);
        },
        (error: unknown) => {
          settle();
          reject(error instanceof Error ? error : new VmmError(String(error)));
        },
      );
    });
  }
}

function unanswered(name: string, answerMs: number): VmmError {
  return new VmmError(`${SILENT} ${name} within ${answerMs / 1000} s`);
}
