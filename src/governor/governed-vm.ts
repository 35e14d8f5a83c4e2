import type { VmView } from '../../protocol/control/schema.js';
import type { Monotonic } from '../os/clock.js';

/** A guest's last statistics by their names, not copied. */
export interface StatsFigures {
  readonly values: ReadonlyMap<string, number>;
  readonly ageSeconds: number;
  /** The moment at which they came: others came at another moment. */
  readonly receivedAt: Monotonic;
}

type Sizes = Pick<VmView['balloon'], 'targetBytes' | 'actualBytes'>;

/** The figures of one device, read every few seconds. */
export interface DeviceFigures extends Pick<VmView, 'state' | 'inhibited'>, Sizes {
  readonly stats: StatsFigures | null;
}

/** The figures of a VM that the policy goes by. */
export interface VmFigures extends DeviceFigures {
  /** The sizes of the page cache balloon, where the guest runs one. */
  readonly cache: Sizes | null;
  /** False: the guest runs a page cache balloon and no other, so that it gives by itself or not at all. */
  readonly askable: boolean;
}

/** A VM as the governor sees it, and the ways in which the governor moves it. */
export interface GovernedVm {
  readonly name: string;
  readonly pid: number;
  readonly ramBytes: number;
  /** The memory that the guest takes up on the host. */
  readonly allocatedBytes: number;
  /** Its limits can be set, as far as is known. */
  readonly limitable: boolean;
  /** An operator has taken it in hand. */
  manual: boolean;
  readonly figures: VmFigures;
  setPolicyTarget(balloonBytes: number): void;
  setCacheLimit(cacheBytes: number): void;
  /** Holds its cgroup to these; null: to the limits before. Rejects with a sentence. */
  force(highBytes: number | null, maxBytes: number | null): Promise<void>;
}
