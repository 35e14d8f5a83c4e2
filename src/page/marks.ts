/** What the policy did, as marks on a time line. */
import type { DaemonEvent } from '../../protocol/control/schema.js';
import { SAMPLE_MS, SAMPLES } from '../../protocol/control/live.js';

export interface Mark {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly kind: 'took' | 'gave' | 'forced' | 'released';
  readonly vm: string;
  readonly message: string;
}

const KINDS: Readonly<Record<string, Mark['kind']>> = {
  'policy-took': 'took',
  'policy-gave': 'gave',
  'policy-forced': 'forced',
  'policy-released': 'released',
};

/** Null: the event is none of the policy. */
export function markOf({ event, time, vm = '', message }: DaemonEvent): Mark | null {
  const kind = Object.hasOwn(KINDS, event) ? KINDS[event] : undefined;
  return kind === undefined ? null : { time: Date.parse(time), kind, vm, message };
}

/** The marks of the last hour, oldest first. */
export class Marks {
  #all: Mark[] = [];

  add(mark: Mark): void {
    this.#all.push(mark);
    const from = mark.time - SAMPLES * SAMPLE_MS;
    if ((this.#all[0]?.time ?? from) < from) this.#all = this.#all.filter(({ time }) => time >= from);
  }

  clear(): void {
    this.#all = [];
  }

  /** `vm` null: those of all VMs. */
  of(vm: string | null): readonly Mark[] {
    return vm === null ? this.#all : this.#all.filter((mark) => mark.vm === vm);
  }

  /** Those within `withinMs` of a moment, newest last. */
  near(vm: string | null, time: number, withinMs: number): readonly Mark[] {
    return this.of(vm).filter((mark) => Math.abs(mark.time - time) <= withinMs);
  }
}
