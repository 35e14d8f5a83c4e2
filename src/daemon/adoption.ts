/**
 * One VM that is to be adopted: its VMM is reached, and after the VM or the way to it ended reached again, less and less often
 * while that fails. qmp-way and libvirt-way have the ways.
 */
import type { AdoptedVmm, VmmLook } from '../../protocol/adopted.js';
import type { AdoptedSocket } from '../../protocol/control/schema.js';
import { refusal, type NextStep, type RefusalText } from '../../protocol/control/refusal.js';
import { RefusedError } from '../control/fleet.js';
import type { Emit } from '../ops/event-log.js';
import type { AdoptedDevice } from '../vm/adopted-device.js';
import type { AdoptedKind } from '../vm/kinds.js';

const FIRST_MS = 1000;
const MOST_MS = 60_000;

/** Why a VM cannot be adopted. */
export interface Obstacle {
  /** The end of a sentence. */
  readonly why: string;
  readonly step: NextStep;
  /** The VM has just ended, or is not started yet, which is no event. */
  readonly isAbsent: boolean;
  /** The VM is as its operator wants it, and is not to be adopted. */
  readonly isUnwanted?: boolean;
}

/** A way to the VMM of one VM. */
export interface Way {
  readonly kind: AdoptedKind;
  /** The VM in messages, such as `the VM at /run/web.qmp`, and how an operator finds it. */
  readonly words: string;
  readonly path: string;
  /** Null: the way is no socket of its own. */
  readonly socketPath: string | null;
  /** `waits` is called where that takes longer than a VMM needs. Rejects; obstacle() says why. */
  reach(waits: (says: RefusalText) => void): Promise<AdoptedVmm>;
  /** Ends a reach() that is under way. */
  giveUp(): void;
  /** Of what reach() rejected with. Throws what is no such reason. */
  obstacle(error: unknown): Obstacle;
}

/** A VM that was reached. */
export interface Adoptable {
  readonly way: Way;
  readonly vmm: AdoptedVmm;
  readonly seen: VmmLook;
  /** To be called once, when the device is closed. */
  readonly closed: () => void;
}

export interface AdoptionOptions {
  readonly emit: Emit;
  /** Makes the device; throws RefusedError. */
  readonly make: (adoptable: Adoptable) => AdoptedDevice;
}

/** As the control API shows what the configuration adopts and an operator released. */
export function releasedView(path: string): AdoptedSocket {
  const problem = refusal(`an operator released ${path}`, `run balloonctl adopt ${path}`);
  return { path, by: 'operator', vm: null, problem };
}

export class Adoption {
  readonly way: Way;
  readonly #options: AdoptionOptions;
  #device: AdoptedDevice | null = null;
  #problem: RefusalText | null = null;
  readonly #told = new Set<RefusalText>();
  /** The way is busy with another program, and the daemon waits. */
  #waits = false;
  #trying = false;
  #isWanted = true;
  #timer: NodeJS.Timeout | null = null;
  #waitMs = FIRST_MS;
  #ended = false;

  constructor(way: Way, options: AdoptionOptions) {
    this.way = way;
    this.#options = options;
  }

  /** The device that came of it; null: none yet. */
  get device(): AdoptedDevice | null {
    return this.#device;
  }

  /** Why there is no device, and what to do; null: there is one, or nothing is known yet. */
  get problem(): RefusalText | null {
    return this.#problem;
  }

  /** False: the operator of the VM wants it to be left alone. */
  get isWanted(): boolean {
    return this.#isWanted;
  }

  get waits(): boolean {
    return this.#waits;
  }

  /** Tries until end(). Resolves when the first attempt failed, made a device or waits. */
  async start(): Promise<void> {
    await new Promise<void>((resolve) => void this.#attempt(resolve));
  }

  /** The VM may be there now, if it was not before. */
  hurry(): void {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#waitMs = FIRST_MS;
    void this.#attempt();
  }

  /** Lets go of the VM. */
  async end(): Promise<void> {
    this.#ended = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#device === null) this.way.giveUp();
    else await this.#device.leave();
  }

  async #attempt(settled: () => void = () => undefined): Promise<void> {
    if (this.#trying) return;
    this.#trying = true;
    this.#timer = null;
    const { way } = this;
    try {
      const vmm = await way.reach((says) => {
        this.#waits = true;
        this.#say('qmp-waiting', says);
        settled();
      });
      this.#waits = false;
      const seen = await vmm.look();
      if (this.#ended) return;
      const closed = (): void => this.#closed();
      this.#device = this.#options.make({ way, vmm, seen, closed });
      this.#problem = null;
      this.#told.clear();
      this.#isWanted = true;
      this.#waitMs = FIRST_MS;
    } catch (error) {
      way.giveUp();
      this.#fail(error);
    } finally {
      this.#trying = false;
      this.#waits = false;
      settled();
    }
  }

  #closed(): void {
    this.#device = null;
    this.#again();
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    if (error instanceof RefusedError) this.#say('adopt-failed', error.message);
    else {
      const { why, step, isAbsent, isUnwanted = false } = this.way.obstacle(error);
      this.#isWanted = !isUnwanted;
      const says = refusal(`${this.way.words} cannot be adopted, since ${why}`, step);
      if (isAbsent) this.#problem = says;
      else this.#say('adopt-failed', says);
    }
    this.#again();
  }

  /** Once for each reason, until there is a device. */
  #say(event: 'qmp-waiting' | 'adopt-failed', says: RefusalText): void {
    if (!this.#told.has(says)) this.#options.emit(event, says, { socket: this.way.path });
    this.#told.add(says);
    this.#problem = says;
  }

  #again(): void {
    if (this.#ended) return;
    this.#timer = setTimeout(() => void this.#attempt(), this.#waitMs).unref();
    this.#waitMs = Math.min(2 * this.#waitMs, MOST_MS);
  }
}
