/** The memory of a guest, and the targets of its devices by that and by the orders. */
import { formatSize } from '../../protocol/control/size.js';
import type { Emit } from '../ops/event-log.js';
import type { Part } from './kinds.js';
import { leastGuestBytes } from './least-guest.js';
import type { Orders, Wishes } from './orders.js';
import { Ram } from './ram.js';
import { settleTarget, type TargetedDevice } from './targets.js';

interface SizedDevice extends TargetedDevice {
  /** The memory that the guest says it has, its balloon included; null: it has not said. */
  readonly toldBytes: number | null;
  /** The same by the word of the VMM, where it says that. */
  readonly vmmBytes?: number;
}

export class Sizes {
  readonly #ram: Ram;
  readonly #emit: Emit;
  /** Why targets are not what was ordered, as it was said last. */
  readonly #cuts = new Map<Part, string>();

  constructor(pid: number, emit: Emit) {
    this.#ram = new Ram(pid, emit);
    this.#emit = emit;
  }

  /** The memory of the guest, its balloon included; 0 where nothing is known of it. */
  get ramBytes(): number {
    return this.#ram.bytes;
  }

  /** Whether that is the word of the guest or of its VMM, and no guess by the memory that is shared. */
  get ramIsKnown(): boolean {
    return this.#ram.isKnown;
  }

  /** Whether the VMM had shared any memory when it was looked at last. */
  get isShared(): boolean {
    return this.#ram.isShared;
  }

  /** The memory without which the guest cannot live. */
  get leastBytes(): number {
    return leastGuestBytes(this.#ram.bytes, this.#ram.kernelBytes);
  }

  /** Finds out how much memory the guest has. Returns whether targets are to be settled again. */
  measure(sharedBytes: number, devices: readonly SizedDevice[]): boolean {
    const told = devices.map(({ toldBytes }) => toldBytes).find((bytes) => bytes !== null);
    const vmms = devices.map(({ vmmBytes }) => vmmBytes).find((bytes) => bytes !== undefined);
    return this.#ram.measure(sharedBytes, told ?? null, vmms ?? null);
  }

  /** Brings the target of a device to what is ordered, as far as that is possible, and says where it is not. */
  settle(device: TargetedDevice, to: { orders: Orders; wishes: Wishes; lapsed: boolean }): void {
    const { part } = device;
    const cut = settleTarget(device, this, to);
    if (cut?.says === this.#cuts.get(part)) return;
    this.forget(part);
    if (cut === null) return;
    const { says, askedBytes, bytes } = cut;
    this.#cuts.set(part, says);
    const ordered = `${formatSize(askedBytes)} was ordered, and ${says}`;
    this.#emit('target-clamped', ordered, { askedBytes, targetBytes: bytes });
  }

  /** Why the target of a device is not what was ordered, in words; null: it is. */
  cut(part: Part): string | null {
    return this.#cuts.get(part) ?? null;
  }

  /** There is another order: what was said of the last one is to be said again where it is still so. */
  forget(part: Part): void {
    this.#cuts.delete(part);
  }
}
