import type { CgroupUsage } from '../host/cgroup.js';
import type { VmFigures } from '../vm/figures.js';

export type { DeviceFigures, StatsFigures, VmFigures } from '../vm/figures.js';

/** The cgroup of a VM as the policy sees it. Nothing throws: a VM without a cgroup tells nothing. */
export interface GovernedCgroup {
  usage(): CgroupUsage | null;
  /** Calls back when the VM's tasks wait for memory, until unwatch(). Returns the errno name where that cannot be yet. */
  watch(listener: () => void): string | null;
  unwatch(listener: () => void): void;
}

/** A VM as the policy governs it. */
export interface GovernedVm {
  readonly name: string;
  readonly pid: number;
  readonly ramBytes: number;
  /** The memory that the files of guest memory take up on the host. */
  readonly allocatedBytes: number;
  /** Whether its limits can be set, as far as that is known. */
  readonly limitable: boolean;
  readonly cgroup: GovernedCgroup;
  /** An operator has taken it in hand. */
  manual: boolean;
  readonly figures: VmFigures;
  setPolicyTarget(balloonBytes: number): void;
  setCacheLimit(cacheBytes: number): void;
  /** Holds its cgroup to these; null: to the limits that were ordered. Rejects with a sentence. */
  force(highBytes: number | null, maxBytes: number | null): Promise<void>;
}
