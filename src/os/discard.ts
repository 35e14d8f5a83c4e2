import { closeFd } from './fd.js';
import { checked, SystemError } from './errors.js';
import { Mapping } from './mapping.js';
import { createMemfd } from './memfd.js';
import { native, type BehindHandle } from './native.js';
import { allocatedBytes, SYSTEM_PAGE_BYTES } from './file.js';

/** Ways to remove pages, in the order of preference; the helper knows them by position. */
const METHODS = ['process_madvise', 'madvise', 'fallocate'] as const;
export type DiscardMethod = (typeof METHODS)[number];

/** Ways to bring pages of hugetlbfs back; they follow in the helper's order. */
const REFILL_METHODS = ['allocate', 'reserve'] as const;
export type RefillMethod = (typeof REFILL_METHODS)[number];

const failure = new Int32Array(1);
let probed: DiscardMethod | null = null;
let pidfd = -1;
let tellRefusal: ((error: SystemError) => void) | null = null;

/**
 * The best method that this kernel has: tried once, on a memory file of our own. process_madvise takes many ranges
 * in one call, and accepts MADV_REMOVE for the calling process on newer kernels.
 */
export function probeDiscard(): DiscardMethod {
  probed ??= METHODS.find((method) => works(method)) ?? 'fallocate';
  return probed;
}

/**
 * Removes `count` ranges, pairs of offset and length in bytes inside the mapping and aligned to the file's pages,
 * from the file `fd` behind it. Stops at the first that fails: `completed` of them are done, `error` says why.
 */
export function discardRanges(
  mapping: Mapping,
  fd: number,
  ranges: Float64Array,
  count: number,
  method: DiscardMethod = probeDiscard(),
): { completed: number; error: SystemError | null } {
  const completed = native.discard(
    mapping.handle,
    method === 'process_madvise' ? checked(selfPidfd(), 'pidfd_open') : fd,
    ranges,
    count,
    METHODS.indexOf(method),
    failure,
  );
  return { completed, error: completed < count ? new SystemError(failure[0] ?? 0, method) : null };
}

/**
 * Calls `tell` once, after a discard, when threads that discard may not have a lower priority than the event loop: they
 * discard all the same, and with few cores rings wait for them.
 */
export function onPriorityRefused(tell: (error: SystemError) => void): void {
  tellRefusal = tell;
}

function lookAtPriority(): void {
  if (tellRefusal === null) return;
  const errno = native.priorityRefused();
  if (errno === 0) return;
  const tell = tellRefusal;
  tellRefusal = null;
  tell(new SystemError(errno, 'setpriority'));
}

/** What became of a range: 0 when it was discarded, NOT_ATTEMPTED, or the errno of its failure. */
export const NOT_ATTEMPTED = -1;

/**
 * Work on ranges of a mapping on another thread, which goes on behind a range that fails. `done` is called from the event
 * loop, never at once, when `outcomes` has one entry for each range; until then the mapping cannot be closed (EBUSY)
 * and the fd must stay open. Throws SystemError when there is no memory for it.
 */
class BackgroundWork<Method extends DiscardMethod | RefillMethod> {
  readonly #handle: BehindHandle;

  constructor(
    mapping: Mapping,
    fd: number,
    ranges: Float64Array,
    count: number,
    outcomes: Int32Array,
    done: (seconds: number) => void,
    method: Method,
  ) {
    const handle = native.discardBehind(
      mapping.handle,
      method === 'process_madvise' ? checked(selfPidfd(), 'pidfd_open') : fd,
      ranges,
      count,
      [...METHODS, ...REFILL_METHODS].indexOf(method),
      outcomes,
      (seconds) => {
        done(seconds);
        lookAtPriority();
      },
    );
    if (typeof handle === 'number') throw new SystemError(-handle, method, `of ${count} ranges`);
    this.#handle = handle;
  }

  /** Cuts the work short: at most a few more MiB are worked on, the rest is not attempted. */
  stop(): void {
    native.stopBehind(this.#handle);
  }
}

/** As discardRanges(), in the background. */
export class BackgroundDiscard extends BackgroundWork<DiscardMethod> {}

/**
 * The way back, for a file on hugetlbfs: `allocate` gives each hole in the ranges a page of the pool, of zeros (ENOSPC: the pool
 * has none left), `reserve` has the pool keep one for it, which costs next to nothing (ENOMEM). `reserve` does not keep a
 * guest alive whose memory is bound to a NUMA node, or held to a hugetlb cgroup, where there is no page for it.
 */
export class BackgroundRefill extends BackgroundWork<RefillMethod> {}

/** Negative where the kernel or its seccomp filter has none. */
function selfPidfd(): number {
  if (pidfd < 0) pidfd = native.pidfdSelf();
  return pidfd;
}

function works(method: DiscardMethod): boolean {
  if (method === 'process_madvise' && selfPidfd() < 0) return false;
  const page = SYSTEM_PAGE_BYTES;
  const fd = createMemfd('balloond-probe', 2 * page);
  try {
    const mapping = Mapping.map(fd, 0, 2 * page);
    try {
      mapping.write(0, new Uint8Array(2 * page).fill(1), 0, 2 * page);
      // Two ranges, so that one call stands for many; and the pages must be gone, not only the call succeed.
      const ranges = Float64Array.of(0, page, page, page);
      const completed =
        method === 'process_madvise'
          ? native.discardVector(mapping.handle, selfPidfd(), ranges, 2)
          : discardRanges(mapping, fd, ranges, 2, method).completed;
      return completed === 2 && allocatedBytes(fd) === 0;
    } finally {
      mapping.close();
    }
  } finally {
    closeFd(fd);
  }
}
