/** How long a piece of work may take of the event loop, and how long it then leaves it alone. */
const TURN_MS = 1;
const PAUSE_MS = 9;

interface Job {
  readonly steps: Iterator<undefined, void>;
  readonly done: (ms: number) => void;
  ms: number;
}

/**
 * Work that nobody waits for, of many VMs: a millisecond of it at a time, in turns, and never more than a tenth of the event
 * loop. A job is an iterator, whose steps take some microseconds each.
 */
export class SpareTime {
  #jobs: Job[] = [];
  #timer: NodeJS.Timeout | null = null;

  /** `done` is called behind the last step, with the milliseconds that all steps took. Returns the way to end it before. */
  run(steps: Iterator<undefined, void>, done: (ms: number) => void): () => void {
    const job = { steps, done, ms: 0 };
    this.#jobs.push(job);
    this.#wait(0);
    return () => {
      this.#jobs = this.#jobs.filter((one) => one !== job);
    };
  }

  #wait(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#turn();
    }, ms).unref();
  }

  #turn(): void {
    const job = this.#jobs.shift();
    if (job === undefined) return;
    const begun = performance.now();
    let over = false;
    while (!over && performance.now() - begun < TURN_MS) over = job.steps.next().done === true;
    job.ms += performance.now() - begun;
    if (over) job.done(job.ms);
    else this.#jobs.push(job);
    if (this.#jobs.length > 0) this.#wait(PAUSE_MS);
  }
}

/** The spare time of this process. */
export const SPARE_TIME = new SpareTime();
