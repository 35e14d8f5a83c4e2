import type { Emit } from '../ops/event-log.js';

/** A VM whose discards can be stopped, and its devices. */
interface Inhibited {
  /** The reason why nothing is to be discarded; null: pages are discarded. */
  readonly inhibited: string | null;
  readonly devices: readonly { setInhibited(reason: string | null): Promise<void> }[];
}

/** Brings the devices of a VM to what holds for its discards, and tells of each change. */
export class Inhibition {
  readonly #vm: Inhibited;
  readonly #emit: Emit;
  #now: string | null = null;
  #quiet: Promise<unknown> = Promise.resolve();

  constructor(vm: Inhibited, emit: Emit) {
    this.#vm = vm;
    this.#emit = emit;
  }

  /** A daemon before this one told of it. */
  found(reason: string | null): void {
    this.#now = reason;
  }

  /** Resolves when it is in effect, and no discard under way if it is to stop them. */
  async settle(): Promise<void> {
    const reason = this.#vm.inhibited;
    const other = reason !== this.#now;
    this.#now = reason;
    if (other) this.#quiet = Promise.all(this.#vm.devices.map((device) => device.setInhibited(reason)));
    await this.#quiet;
    if (!other) return;
    if (reason !== null) this.#emit('inhibited', `discarding stopped: ${reason}`, { reason });
    else this.#emit('allowed', 'discarding resumed');
  }
}
