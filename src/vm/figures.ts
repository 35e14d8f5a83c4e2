/** The figures of a VM that the policy goes by, read of every device every few seconds. */
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

/** The figures of one device. */
export interface DeviceFigures extends Pick<VmView, 'state' | 'inhibited'>, Sizes {
  readonly stats: StatsFigures | null;
  /** The memory of the guest is on hugetlbfs: freed, it is not available to the rest of the host. */
  readonly pooled: boolean;
}

export interface VmFigures extends DeviceFigures {
  /** The sizes of the page cache balloon, where the guest runs one. */
  readonly cache: Sizes | null;
  /** False: the guest runs a page cache balloon and no other, so that it gives by itself or not at all. */
  readonly askable: boolean;
}

/** The figures of a VM whose devices, where it has them, have these. */
export function vmFigures(
  balloon: DeviceFigures | undefined,
  cache: DeviceFigures | undefined,
  inhibited: string | null,
): VmFigures {
  const runs = cache?.state === 'running';
  return {
    state: runs ? 'running' : (balloon?.state ?? cache?.state ?? 'connected'),
    inhibited,
    stats: balloon?.stats ?? cache?.stats ?? null,
    pooled: balloon?.pooled ?? cache?.pooled ?? false,
    targetBytes: balloon?.targetBytes ?? 0,
    actualBytes: balloon?.actualBytes ?? 0,
    cache: runs ? cache : null,
    askable: !runs || balloon?.state === 'running',
  };
}
