/** What is told of a device: its figures for the control API, for limits and for the memory of its guest. */
import type { BalloonView, VmView } from '../../protocol/control/schema.js';
import { BalloonFeature } from '../../protocol/virtio/balloon.js';
import { hasFeature } from '../../protocol/virtio/features.js';
import { PAGE_BYTES } from '../memory/region.js';
import { msSince } from '../os/clock.js';
import type { Session } from '../vhost-user/session.js';
import { tellsFirst } from './feature-names.js';
import type { DeviceFigures } from './figures.js';
import { PARTS, type AnyBalloon, type Part } from './kinds.js';
import { NOTHING_USED, type DeviceUse } from './limits-plan.js';
import { toldRam } from './ram.js';

/** A balloon, the session in which it is served, and its part for the VM. */
export interface ServedDevice {
  readonly balloon: AnyBalloon;
  readonly session: Session;
  readonly part: Part;
}

/** The size of the balloon in bytes. A driver that stopped may go on, and has what it had. */
export function sizeBytes({ balloon, session }: ServedDevice): number {
  return session.state === 'stopped' ? balloon.heldBytes : balloon.actualBytes;
}

/** The part of a view that costs little. */
export function deviceFigures(served: ServedDevice): DeviceFigures {
  const { targetBytes, inhibited, stats, discardsUntold } = served.balloon;
  const { memory, features } = served.session;
  const pageBytes = memory.poolPageBytes;
  const discards = discardsUntold || (!PARTS[served.part].sizesItself && tellsFirst(features));
  const { values, receivedAt } = stats;
  return {
    state: served.session.state,
    targetBytes,
    actualBytes: sizeBytes(served),
    actualUnknown: served.balloon.actualUnknown,
    inhibited,
    stats:
      values === null || receivedAt === null
        ? null
        : { values, ageSeconds: msSince(receivedAt) / 1000, receivedAt },
    pool: pageBytes === null ? null : { pageBytes, discards },
    sharesMemory: true,
    slowness: 0,
    deflatesOnOom: givesOnOom(served),
  };
}

/** Whether the guest takes memory back when it runs out of memory. */
export function givesOnOom({ part, session }: ServedDevice): boolean {
  const { VIRTIO_BALLOON_F_DEFLATE_ON_OOM: bit } = BalloonFeature;
  return PARTS[part].sizesItself || hasFeature(session.features, bit);
}

/** The device in the control API. */
export function deviceView(served: ServedDevice): BalloonView {
  const { balloon, session } = served;
  const { totals, targetBytes, absentPages } = balloon;
  const pending = session.state === 'running' ? session.memory.pendingPages : 0;
  return {
    targetBytes,
    actualBytes: sizeBytes(served),
    actualUnknown: balloon.actualUnknown,
    pendingBytes: pending * PAGE_BYTES,
    refilledBytes: absentPages?.refilledBytes ?? null,
    pinnedBytes: absentPages?.pinnedBytes ?? null,
    discardedBytesTotal: totals.discarded,
    inflatedBytesTotal: totals.inflated,
    deflatedBytesTotal: totals.deflated,
    reportedBytesTotal: totals.reported,
    discardSecondsTotal: totals.discardSeconds,
  };
}

/** The use that its guest may make of memory. A page that owes its discard, or came back, is still the guest's for the host. */
export function deviceUse({ balloon, session, part }: ServedDevice): DeviceUse {
  // The pages of a device that sizes itself are the guest's whenever it wants them.
  if (PARTS[part].sizesItself) return NOTHING_USED;
  const { memory, features, state } = session;
  const { targetBytes, absentPages } = balloon;
  const back = (absentPages?.refilledBytes ?? 0) + (absentPages?.pinnedBytes ?? 0);
  return {
    targetBytes,
    discardedBytes: Math.max(0, (memory.balloonedPages - memory.pendingPages) * PAGE_BYTES - back),
    tellsFirst: state === 'running' && tellsFirst(features),
    sharesMemory: true,
  };
}

/** The memory that the guest says it has, in bytes, its balloon included; null: it has not said. */
export function toldBytes({ balloon, session, part }: ServedDevice): number | null {
  const { features, memory } = session;
  if (PARTS[part].sizesItself) return toldRam(balloon.stats.values, features, 0);
  if (balloon.actualUnknown) return null;
  // Pages that went into the balloon before the VMM connected are in no ledger.
  const heldPages = Math.max(memory.balloonedPages, balloon.actualBytes / PAGE_BYTES);
  return toldRam(balloon.stats.values, features, heldPages);
}

/** Queues of a VMM that has enough for the balloon, and too few for a page cache balloon on the same device; null: else. */
export function queuesLacking({ present = Infinity, device }: Session): VmView['queuesLacking'] {
  const { queueCount: needed, leastQueues } = device;
  return present >= needed || present < leastQueues ? null : { present, needed };
}
