/** A balloon of either part as the control API shows it. */
import type { BalloonView } from '../../protocol/control/schema.js';
import { PAGE_BYTES } from '../memory/region.js';
import type { AnyBalloon } from './kinds.js';

/** Of a VM without a balloon. */
export const NO_BALLOON: BalloonView = {
  targetBytes: 0,
  actualBytes: 0,
  pendingBytes: 0,
  refilledBytes: null,
  pinnedBytes: null,
  discardedBytesTotal: 0,
  inflatedBytesTotal: 0,
  deflatedBytesTotal: 0,
  reportedBytesTotal: 0,
  discardSecondsTotal: 0,
};

/** `pendingPages`: those that owe a discard. */
export function viewOfBalloon(balloon: AnyBalloon, pendingPages: number): BalloonView {
  const { targetBytes, actualBytes, totals, refills } = balloon;
  return {
    targetBytes,
    actualBytes,
    pendingBytes: pendingPages * PAGE_BYTES,
    refilledBytes: refills?.refilledBytes ?? null,
    pinnedBytes: refills?.pinnedBytes ?? null,
    discardedBytesTotal: totals.discarded,
    inflatedBytesTotal: totals.inflated,
    deflatedBytesTotal: totals.deflated,
    reportedBytesTotal: totals.reported,
    discardSecondsTotal: totals.discardSeconds,
  };
}
