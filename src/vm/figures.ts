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

/** The pool of huge pages that the memory of a guest is in. */
interface PoolFigures {
  /** The size of the pool's pages. */
  readonly pageBytes: number;
  /** Whether huge pages that the guest gives up are discarded, so that the pool gets them back. */
  readonly discards: boolean;
}

/** The figures of one device. */
export interface DeviceFigures extends Pick<VmView, 'state' | 'inhibited'>, Sizes {
  /** The driver has not said yet how much it holds. */
  readonly actualUnknown: boolean;
  readonly stats: StatsFigures | null;
  /** Null: most of the guest's memory is in the RAM of the host. */
  readonly pool: PoolFigures | null;
  /** The VMM shares guest memory as files, which count as shmem; false: it may be memory of the VMM itself. */
  readonly sharesMemory: boolean;
  /** By how many times more than others it is moved at once, and waited for (kinds). */
  readonly slowness: number;
  /** The guest takes memory back by itself when it runs out of memory. */
  readonly deflatesOnOom: boolean;
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
    pool: (runs && balloon?.state !== 'running' ? cache : (balloon ?? cache))?.pool ?? null,
    targetBytes: balloon?.targetBytes ?? 0,
    actualBytes: balloon?.actualBytes ?? 0,
    actualUnknown: balloon?.actualUnknown ?? false,
    sharesMemory: (balloon ?? cache)?.sharesMemory ?? true,
    slowness: (balloon ?? cache)?.slowness ?? 0,
    deflatesOnOom: (balloon ?? cache)?.deflatesOnOom ?? false,
    cache: runs ? cache : null,
    askable: !runs || balloon?.state === 'running',
  };
}
