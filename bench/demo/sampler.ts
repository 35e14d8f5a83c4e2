/** Looks at a guest a few times a second, from the inside and from the outside, until it is stopped. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest } from '../../test/support/lab/guest.js';
import type { Mark, Recording, Sample } from './recording.js';

const PAUSE_MS = 120;

export class Sampler implements Recording {
  readonly samples: Sample[] = [];
  readonly marks: Mark[] = [];
  readonly #guest: Guest;
  readonly #onSample: (sample: Sample) => void;
  readonly #beganMs = performance.now();
  readonly #ended: Promise<void>;
  #stopping = false;

  constructor(guest: Guest, onSample: (sample: Sample) => void) {
    this.#guest = guest;
    this.#onSample = onSample;
    this.#ended = this.#run();
    // A guest that ends fails whatever the demo asks of it next, which tells why.
    this.#ended.catch(() => undefined);
  }

  /** Remembers that something is done now. */
  mark(text: string): void {
    this.marks.push({ seconds: this.#seconds(), text });
  }

  async sample(): Promise<Sample> {
    const { MemFree: guestFreeBytes = 0 } = await this.#guest.meminfo();
    const sample = { seconds: this.#seconds(), hostBytes: this.#guest.memfdAllocatedBytes(), guestFreeBytes };
    this.samples.push(sample);
    this.#onSample(sample);
    return sample;
  }

  /** Resolves when the last sample is taken; throws what kept it from being taken. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#ended;
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      await this.sample();
      await sleep(PAUSE_MS);
    }
  }

  #seconds(): number {
    return (performance.now() - this.#beganMs) / 1000;
  }
}
