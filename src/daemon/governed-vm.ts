import type { VmView } from '../../protocol/control/schema.js';
import type { Monotonic } from '../os/clock.js';
import type { Vm } from './vm.js';

/** A guest's last statistics by their names, not copied. */
export interface StatsFigures {
  readonly values: ReadonlyMap<string, number>;
  readonly ageSeconds: number;
  /** When they came: others came at another moment. */
  readonly receivedAt: Monotonic;
}

/** What the policy goes by, read of every device every few seconds. */
export interface DeviceFigures extends Pick<VmView, 'state' | 'inhibited'>, Sizes {
  readonly stats: StatsFigures | null;
}
type Sizes = Pick<VmView['balloon'], 'targetBytes' | 'actualBytes'>;

export interface VmFigures extends DeviceFigures {
  /** Of its page cache balloon, where its guest runs one. */
  readonly cache: Sizes | null;
  /** False: its guest runs that and no other, so that it gives by itself or not at all. */
  readonly askable: boolean;
}

/** A VM as the policy governs it. */
export interface GovernedVm {
  readonly name: string;
  readonly pid: number;
  readonly ramBytes: number;
  /** What its guest's memory takes up on the host. */
  readonly allocatedBytes: number;
  /** Its limits can be set, as far as is known. */
  readonly limitable: boolean;
  /** An operator has taken it in hand. */
  manual: boolean;
  readonly figures: VmFigures;
  setPolicyTarget(balloonBytes: number): void;
  setCacheLimit(cacheBytes: number): void;
  /** Holds its cgroup to these; null: to what it was before. Rejects with a sentence. */
  force(highBytes: number | null, maxBytes: number | null): Promise<void>;
}

/** The devices of one VMM: a traditional balloon, a page cache balloon, or both. */
export class GovernedDevices implements GovernedVm {
  readonly name: string;
  readonly #devices: readonly [Vm, ...Vm[]];
  readonly #balloon: Vm | undefined;
  readonly #cache: Vm | undefined;

  constructor(name: string, devices: readonly [Vm, ...Vm[]]) {
    this.name = name;
    this.#devices = devices;
    this.#balloon = devices.find(({ kind }) => kind === 'balloon');
    this.#cache = devices.find(({ kind }) => kind === 'cache-balloon');
  }

  get pid(): number {
    return this.#devices[0].pid;
  }

  /** A device whose driver has not started yet knows of no memory. */
  get ramBytes(): number {
    return Math.max(...this.#devices.map(({ ramBytes }) => ramBytes));
  }

  get allocatedBytes(): number {
    return Math.max(...this.#devices.map(({ allocatedBytes }) => allocatedBytes));
  }

  get limitable(): boolean {
    return this.#devices[0].limitable;
  }

  get manual(): boolean {
    return this.#devices.some(({ manual }) => manual);
  }

  set manual(manual) {
    for (const device of this.#devices) device.manual = manual;
  }

  get figures(): VmFigures {
    const balloon = this.#balloon?.figures;
    const cache = this.#cache?.figures;
    const runs = cache?.state === 'running';
    return {
      state: runs ? 'running' : (balloon?.state ?? cache?.state ?? 'connected'),
      inhibited: balloon?.inhibited ?? cache?.inhibited ?? null,
      stats: balloon?.stats ?? cache?.stats ?? null,
      targetBytes: balloon?.targetBytes ?? 0,
      actualBytes: balloon?.actualBytes ?? 0,
      cache: runs ? cache : null,
      askable: !runs || balloon?.state === 'running',
    };
  }

  setPolicyTarget(balloonBytes: number): void {
    this.#balloon?.setPolicyTarget(balloonBytes);
  }

  setCacheLimit(cacheBytes: number): void {
    this.#cache?.setPolicyTarget(cacheBytes);
  }

  force(highBytes: number | null, maxBytes: number | null): Promise<void> {
    return this.#devices[0].force(highBytes, maxBytes);
  }
}
