import type { SystemError } from '../os/errors.js';
import type { HugePageObserver } from './huge-page-keeper.js';

/** What a balloon tells its owner. None of these may throw. */
export interface BalloonObserver {
  /** Pages left the balloon; the driver is about to hear that it may use them. */
  tookBack(): void;
  /** The driver reported how much is in the balloon. */
  actualChanged(): void;
  statsReceived(): void;
  /** The guest named pages that no region holds which could be discarded; they were skipped. */
  pagesOutside(count: number): void;
  /** A batch of discards was made (`error` null), or some of them failed. */
  discardsTried(error: SystemError | null, failedRanges: number, seconds: number): void;
  poisonActive(poisonVal: number): void;
  readonly hugePages: HugePageObserver;
}
