/**
 * The words between the daemon and the VMM of an adopted VM, which serves its balloon itself, whichever way they are carried.
 * src/qmp carries them over QEMU's own protocol, src/libvirt over libvirt; src/vm makes a device of either. Sizes are bytes.
 */
import type { NextStep, RefusalText } from './control/refusal.js';

/** A peer that breaks its protocol, refuses a command or does not answer: the end of a sentence on that VMM. */
export class VmmError extends Error {
  override readonly name = 'VmmError';

  constructor(
    message: string,
    /** The peer's own class of the refusal, such as `DeviceNotActive`; null: it did not refuse. */
    readonly errorClass: string | null = null,
  ) {
    super(message);
  }
}

/** The statistics of the guest, as the VMM has them. */
export interface VmmStats {
  /** By their names in the specification; statistics that the guest did not send are left out. */
  readonly values: ReadonlyMap<string, number>;
  /** When the guest sent them, in whole seconds since the epoch by the clock of the host; 0: it never did. */
  readonly sentAtSeconds: number;
}

/** All that the VMM says at one look. */
export interface VmmLook {
  /** The memory of the guest, its balloon included. */
  readonly ramBytes: number;
  /** The memory that the guest has, without its balloon. */
  readonly guestBytes: number;
  /** The VM runs, and is not paused or about to come by migration. */
  readonly vmRuns: boolean;
  readonly stats: VmmStats;
}

/** The end of the way to a VMM. */
export interface VmmEnd {
  /** A sentence on it. */
  readonly why: string;
  /** The VMM is at fault, in a sentence of its own; null: it is not. */
  readonly fault: RefusalText | null;
}

/** Why a program between the daemon and its VMMs does not answer: the end of a sentence, and the next step. */
export interface PeerAway {
  readonly why: string;
  readonly step: NextStep;
}

/** Hears of the VM. */
export interface VmmObserver {
  /** The guest has another amount of memory, without its balloon. */
  sized(guestBytes: number): void;
  /** The guest was reset. */
  reset(): void;
  /** Memory was plugged in or taken out, or the VM is paused, sleeps or wakes: a look tells. `resumed`: it may have another target. */
  changed(resumed?: boolean): void;
  /** The VMM sends so much that it waits for its turns. */
  throttled(): void;
  /** The VMM said something that cannot be true. */
  failed(error: VmmError): void;
  /** The program between the daemon and the VMM is away, so that no call gets to the VMM; null: it is back. */
  peerAway(says: PeerAway | null): void;
  /** Called once, after which nothing comes any more. */
  closed(end: VmmEnd): void;
}

/** A VMM with a balloon that can be moved. All promises reject with VmmError. */
export interface AdoptedVmm {
  readonly pid: number;
  /** Name and version of the program that answers, such as `QEMU 11.1.3`. */
  readonly version: string;
  /** The name of the VM; null: it has none. */
  readonly name: string | null;
  /** The UUID of the VM, in small letters; null: it has none. */
  readonly uuid: string | null;
  /** The interval of statistics that was in force, in seconds; 0: nobody asked for any. */
  readonly foundInterval: number;
  /** The driver was offered to give pages back by itself before its guest runs out of memory. */
  readonly deflatesOnOom: boolean;
  /** The VMM sends so much that it waits for its turns. */
  readonly isThrottled: boolean;
  listen(observer: VmmObserver): void;
  look(): Promise<VmmLook>;
  guestBytes(): Promise<number>;
  stats(): Promise<VmmStats>;
  /** Whole seconds; 0: the guest is asked no more. It is asked at once where it was not asked before. */
  setInterval(seconds: number): Promise<void>;
  /** The guest is to have this much memory. */
  setGuest(bytes: number): Promise<void>;
  /** Lets go of the VM, whose balloon stays as it is. */
  close(): void;
}
