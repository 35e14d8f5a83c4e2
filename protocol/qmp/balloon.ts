/** QEMU's own balloon by its QOM properties (hw/virtio/virtio-balloon.c), and what events tell of it (qapi/machine.json). */
import type { VmmStats } from '../adopted.js';
import { STAT_NAMES } from '../virtio/balloon.js';
import { asCount, asObject } from './messages.js';

/** The devices that are a balloon, each with the properties below; not the part of them that is the virtio device itself. */
export const BALLOON_TYPES: ReadonlySet<string> = new Set([
  'child<virtio-balloon-pci>',
  'child<virtio-balloon-pci-transitional>',
  'child<virtio-balloon-pci-non-transitional>',
  'child<virtio-balloon-ccw>',
  'child<virtio-balloon-device>',
]);

/** Seconds between two times that QEMU asks the guest for statistics; 0: never. */
export const INTERVAL_PROPERTY = 'guest-stats-polling-interval';
export const MAX_INTERVAL_SECONDS = 2 ** 31 - 1;

/** QEMU's names of the statistics, by their numbers. */
const QEMU_STATS = [
  'stat-swap-in',
  'stat-swap-out',
  'stat-major-faults',
  'stat-minor-faults',
  'stat-free-memory',
  'stat-total-memory',
  'stat-available-memory',
  'stat-disk-caches',
  'stat-htlb-pgalloc',
  'stat-htlb-pgfail',
  'stat-oom-kills',
  'stat-alloc-stalls',
  'stat-async-scans',
  'stat-direct-scans',
  'stat-async-reclaims',
  'stat-direct-reclaims',
] as const satisfies Record<keyof typeof STAT_NAMES & number, string> & { length: 16 };

/** Decodes the property `guest-stats`. A statistic that the guest did not send has all bits set, which is no safe integer. */
export function decodeGuestStats(value: unknown): VmmStats {
  const { stats, 'last-update': sent } = asObject(value);
  const sentStats = asObject(stats);
  const values = new Map<string, number>();
  QEMU_STATS.forEach((name, tag) => {
    const count = asCount(sentStats[name]);
    const known = STAT_NAMES[tag];
    if (count !== null && known !== undefined) values.set(known, count);
  });
  return { values, sentAtSeconds: asCount(sent) ?? 0 };
}
