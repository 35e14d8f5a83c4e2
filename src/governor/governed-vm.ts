import type { CgroupUsage } from '../host/cgroup.js';
import type { VmFigures } from '../vm/figures.js';

export type { StatsFigures, VmFigures } from '../vm/figures.js';

/** The cgroup of a VM as the governor sees it. Nothing throws: a VM without a cgroup tells nothing. */
export interface GovernedCgroup {
  usage(): CgroupUsage | null;
  /** Calls back when the VM's tasks wait for memory, until unwatch(). Returns the errno name where that cannot be yet. */
  watch(listener: () => void): string | null;
  unwatch(listener: () => void): void;
}

/** A VM with the figures that it had when the governor looked at it. */
export interface SeenVm {
  readonly vm: GovernedVm;
  readonly figures: VmFigures;
}

/** These of a GovernedVm are put together, or asked of the kernel, each time that they are read. */
export type Measured = Pick<GovernedVm, 'figures' | 'ramBytes' | 'allocatedBytes'>;

/** A traditional balloon whose target follows the working set of the guest. */
export interface SizedDevice {
  /** Asks the guest for statistics; resolves false where none came within that time. */
  refreshStats(timeoutMs: number): Promise<boolean>;
  /** Sets the target; `why` is the end of a sentence. */
  setSize(balloonBytes: number, why: string): void;
  /** The names of those that its driver acked. */
  readonly features: readonly string[];
  /** Called when the guest says another size of its balloon. */
  onActual: (() => void) | null;
}

/** A VM as the governor sees it, and the ways in which the governor moves it. */
export interface GovernedVm {
  readonly name: string;
  readonly pid: number;
  readonly ramBytes: number;
  /** The regions that the VMM shares; 0: none yet. */
  readonly sharedBytes: number;
  /** The memory that the guest takes up on the host. */
  readonly allocatedBytes: number;
  /** Its limits can be set, as far as is known. */
  readonly limitable: boolean;
  readonly cgroup: GovernedCgroup;
  /** An operator has taken it in hand, or the configuration leaves it alone. */
  manual: boolean;
  /** It is the configuration alone that leaves it alone. */
  readonly leftAlone: boolean;
  readonly figures: VmFigures;
  setPolicyTarget(balloonBytes: number): void;
  setCacheLimit(cacheBytes: number): void;
  /** Its traditional balloon; undefined: it has none. */
  playing(part: 'balloon'): SizedDevice | undefined;
  /** Holds its cgroup to these; null: to the limits before. Rejects with a sentence. */
  force(highBytes: number | null, maxBytes: number | null): Promise<void>;
}
