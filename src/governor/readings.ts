import { monotonicNow, msSince, type Monotonic } from '../os/clock.js';
import type { GovernedCgroup, StatsFigures } from './governed-vm.js';

/** Statistics older than this are of the past. */
const STALE_SECONDS = 60;
/** Memory that a guest did without for so long is not of a program that ended and starts again. */
const STEADY_SECONDS = 30;
/** What a guest that had to wait for memory since its last statistics is taken to stall. */
const COUNTED_STALL_PERCENT = 20;
const STALL_COUNTERS = ['VIRTIO_BALLOON_S_ALLOC_STALL', 'VIRTIO_BALLOON_S_OOM_KILL'] as const;

interface CgroupMemory {
  readonly currentBytes: number;
  readonly overheadBytes: number;
  /** PSI some avg10; NaN where the kernel counts none. */
  readonly pressurePercent: number;
}

/** What is known of the time since statistics came. */
interface Since {
  readonly receivedAt: Monotonic;
  /** The size of the balloon then. */
  readonly actualBytes: number;
  /** They came after the VM was looked at, so that it is known what the guest began to use since. */
  readonly isBounded: boolean;
  leastOnHostBytes: number;
}

/** The least of some figure within the last while: at least one window, at most two. */
class Lowest {
  #begun: Monotonic = monotonicNow();
  #before = Infinity;
  #now = Infinity;

  look(figure: number): number {
    if (msSince(this.#begun) > 1000 * STEADY_SECONDS) {
      this.#before = this.#now;
      this.#now = Infinity;
      this.#begun = monotonicNow();
    }
    if (figure < this.#now) this.#now = figure;
    return Math.min(this.#before, this.#now);
  }
}

/** What the policy looks at of one VM beyond its view: its cgroup, and whether its counters moved. */
export class VmReadings {
  readonly cgroup: GovernedCgroup;
  readonly #onPressure: () => void;
  #counted: number | null = null;
  #countedAt: Monotonic | null = null;
  #stalling = false;
  /** The memory of the VM on the host at the last look. */
  #onHostBytes = Infinity;
  #since: Since | null = null;
  readonly #doneWithout = new Lowest();

  /** `onPressure`: its tasks wait for memory. Until that can be waited for, it is looked at by time. */
  constructor(cgroup: GovernedCgroup, onPressure: () => void) {
    this.cgroup = cgroup;
    this.#onPressure = onPressure;
    cgroup.watch(onPressure);
  }

  /**
   * Null when it has no cgroup of its own, or one that may not be read. `mayUseBytes`: the most that the guest can have of the
   * memory of the VMM itself; null: guest memory is files.
   */
  memory(mayUseBytes: number | null): CgroupMemory | null {
    const usage = this.cgroup.usage();
    if (usage === null) return null;
    const { currentBytes, stat, pressure } = usage;
    const { anon = 0, shmem = 0, kernel = 0 } = stat;
    // Guest memory is shmem (on hugetlbfs it is charged elsewhere), or any memory of the VMM.
    const vmms = mayUseBytes === null ? anon : Math.max(0, anon + shmem - mayUseBytes);
    const overheadBytes = Math.min(currentBytes, vmms + kernel);
    return { currentBytes, overheadBytes, pressurePercent: pressure?.some.avg10 ?? NaN };
  }

  /**
   * The memory that the guest has available (VIRTIO_BALLOON_S_AVAIL), NaN where it has not said: of what it said last, without memory
   * that it put into its balloon since, and without memory that it began to use since, as far as the host sees that.
   */
  availableBytes(stats: StatsFigures | null, actualBytes: number, onHostBytes: number): number {
    const isBounded = this.#onHostBytes !== Infinity;
    const before = Math.min(this.#onHostBytes, onHostBytes);
    this.#onHostBytes = onHostBytes;
    if (stats === null) return NaN;
    const { receivedAt } = stats;
    // They came between this look and the one before.
    if (this.#since?.receivedAt !== receivedAt)
      this.#since = { receivedAt, actualBytes, isBounded, leastOnHostBytes: before };
    else this.#since.leastOnHostBytes = Math.min(this.#since.leastOnHostBytes, onHostBytes);
    const begun = onHostBytes - this.#since.leastOnHostBytes;
    const given = actualBytes - this.#since.actualBytes;
    const left = freshStat(stats, 'VIRTIO_BALLOON_S_AVAIL') - given - begun;
    return left < 0 ? 0 : left;
  }

  /** Of the memory that the guest has available, the part that it did without for some time; NaN: it has not said. */
  steadyBytes(availableBytes: number, actualBytes: number): number {
    if (Number.isNaN(availableBytes)) return NaN;
    return Math.max(0, this.#doneWithout.look(availableBytes + actualBytes) - actualBytes);
  }

  /** How old the last statistics are that availableBytes() went by; Infinity: what the guest began to use since is not known. */
  statsAgeSeconds(stats: StatsFigures | null): number {
    return stats !== null && this.#since?.isBounded === true ? stats.ageSeconds : Infinity;
  }

  /** By what the guest counted since its statistics before these: a claim. */
  stallPercent(stats: StatsFigures | null): number {
    if (stats === null || stats.ageSeconds > STALE_SECONDS) return NaN;
    const counted = STALL_COUNTERS.reduce((sum, name) => sum + (stats.values.get(name) ?? 0), 0);
    // The same statistics seen again say the same again.
    if (stats.receivedAt === this.#countedAt) return this.#stalling ? COUNTED_STALL_PERCENT : 0;
    this.#stalling = this.#counted !== null && counted > this.#counted;
    this.#counted = counted;
    this.#countedAt = stats.receivedAt;
    return this.#stalling ? COUNTED_STALL_PERCENT : 0;
  }

  close(): void {
    this.cgroup.unwatch(this.#onPressure);
  }
}

/** A statistic that is there and not of the past; else NaN. */
export function freshStat(stats: StatsFigures | null, name: string): number {
  return stats === null || stats.ageSeconds > STALE_SECONDS ? NaN : (stats.values.get(name) ?? NaN);
}
