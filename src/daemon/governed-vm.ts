import type { GovernedVm, VmFigures } from '../governor/governed-vm.js';
import type { Vm } from './vm.js';

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
