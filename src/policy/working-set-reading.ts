/**
 * The figures that the size of a VM follows from, and how far they are believed. Sizes are bytes, NaN is "not known". A figure
 * of a guest is a claim: it counts as far as the guest has so much memory, and a figure that is missing is replaced:
 * - without reclaim (Linux before 6.12): what the VMM read from disks for the guest, or else the guest's major faults;
 * - without any of them: page cache is not taken, only free memory is;
 * - without what is available: what is free; without caches: what is available beyond that;
 * - without a driver that gives pages back before the guest ends programs: more memory is left to the guest;
 * - without what is free: nothing is done.
 */
export const PAGE_BYTES = 4096;

export interface SizeReading {
  readonly ramBytes: number;
  readonly targetBytes: number;
  readonly actualBytes: number;
  /** Its driver gives pages back where the guest would end a program (VIRTIO_BALLOON_F_DEFLATE_ON_OOM). */
  readonly givesOnOom: boolean;
  /** The moment of the guest's statistics, in seconds of the clock of step(). */
  readonly statsSeconds: number;
  readonly freeBytes: number;
  readonly availableBytes: number;
  readonly cacheBytes: number;
  /** Since the guest started: what it reclaimed, its major faults, and how often it waited for memory or ended a program. */
  readonly reclaimedBytes: number;
  readonly majorFaults: number;
  readonly stalls: number;
  /** What it read from its swap, and wrote there. */
  readonly swappedInBytes: number;
  readonly swappedOutBytes: number;
  /** What the VMM read from disks. */
  readonly readBytes: number;
  /** The guest's memory that the host has allocated; NaN: not known, or its driver does not report memory that is free. */
  readonly allocatedBytes: number;
}

export interface SizeLimits {
  /** The targets at its ceiling and at its floor. */
  readonly leastTargetBytes: number;
  readonly mostTargetBytes: number;
  /** The memory that it may be given now. */
  readonly roomBytes: number;
}

/** What tells whether a guest reads pages again that were taken from it. */
export type Signal = 'reclaim' | 'reads' | 'faults' | 'none';

/** A figure that a guest does not send. */
export type Missing = 'available' | 'caches' | 'deflate-on-oom';

/** A reading as far as it can be true. */
export interface SizeFacts {
  /** Guests of more than 8 GiB have larger watermarks: sizes are so many times those of smaller guests. */
  readonly scale: number;
  /** The size below which a difference says nothing. */
  readonly unit: number;
  /** Between them the target lies. */
  readonly least: number;
  readonly most: number;
  readonly room: number;
  readonly target: number;
  readonly actual: number;
  /** Memory that the guest owes its balloon, and memory that is about to come back to the guest. */
  readonly owed: number;
  readonly coming: number;
  /** Beyond the memory that the guest's kernel reclaims to keep free. */
  readonly free: number;
  readonly toldFree: number;
  /** Of free memory, the part that takes up memory of the host, and that its driver could report. */
  readonly stale: number;
  readonly guessedBytes: number;
  readonly caches: number;
  /** The memory that the guest could do without, beyond some headroom; negative: it is short of so much. */
  readonly spare: number;
  /** Of that, what the guest itself counts as available. */
  readonly sure: number;
  readonly signal: Signal;
  readonly missing: readonly Missing[];
  readonly counted: number;
  readonly stalls: number;
  readonly swappedIn: number;
  /** In and out. */
  readonly swapped: number;
  /** A stream is known, and goes on. */
  readonly isBeside: boolean;
  readonly statsSeconds: number;
  /** The statistics came after that moment; NaN: none came before. */
  newerThan(statsSeconds: number): boolean;
}

const MIB = 2 ** 20;
const CACHE_KEPT = 24 * MIB;
/** The memory that stays free in any guest. Its kernel keeps more where it has transparent huge pages: up to a share of little RAM. */
export const FREE_KEPT = 24 * MIB;
const WATERMARK_SHARE = 0.08;
const WATERMARK_RAM = 1536 * MIB;
/** Of memory that is free or page cache and yet not available, the part that is kept free. */
const WATERMARK_PART = 0.75;
const HEADROOM = 32 * MIB;
/** It is left so much more where the guest would end a program before it gets pages back. */
const MORE_HEADROOM = 96 * MIB;
/** Of the memory that a guest's kernel keeps free, the part that it has left beside a stream, which is squeezed that far. */
const BESIDE_PART = 0.75;
/** The page cache that it has left there: a stream reads ahead. */
const BESIDE_CACHE = 8 * MIB;
const SMALL_GUEST = 8 * 2 ** 30;

/** The memory that a guest's kernel keeps free, in bytes. */
export interface Kept {
  /** As it was seen, when the guest reclaimed for it; 0: not yet. */
  readonly keptBytes: number;
  /** As it follows from what was not available, when something was. */
  readonly guessedBytes: number;
}

export function facts(
  reading: SizeReading,
  limits: SizeLimits,
  before: Kept & { readonly isBeside: boolean },
): SizeFacts {
  const { ramBytes: ram, statsSeconds } = reading;
  const most = wholePages(within(limits.mostTargetBytes, ram));
  const target = within(reading.targetBytes, ram);
  const actual = within(reading.actualBytes, ram);
  const usable = ram - actual;
  const scale = scaleOf(ram);
  const counter = counterOf(reading);
  const more = reading.givesOnOom ? 0 : firmHeadroomBytes(ram);
  const told = {
    free: claimed(reading.freeBytes, usable, more),
    available: claimed(reading.availableBytes, usable, more),
    caches: claimed(reading.cacheBytes, usable, 0),
  };
  const caches = Number.isNaN(told.caches) ? Math.max(0, told.available - told.free) || 0 : told.caches;
  const unavailable = Math.max(0, told.free + caches - told.available) || 0;
  // Where nothing is available, no more can be told by what is not.
  const guessedBytes = told.available > 0 ? unavailable * WATERMARK_PART : before.guessedBytes;
  const kept = Math.max(before.keptBytes, guessedBytes);
  const ownKept = Math.min(kept, FREE_KEPT * scale + WATERMARK_SHARE * Math.min(ram, WATERMARK_RAM));
  const free = Math.max(0, told.free - Math.max(0, ownKept - FREE_KEPT * scale));
  const other = Number.isNaN(told.available) ? free : told.available;
  const { isBeside } = before;
  const headroom = headroomBytes(ram);
  const besides = told.free - Math.max(headroom, BESIDE_PART * ownKept);
  const yielding = Math.min(other + uncounted(told, ownKept), free + caches - CACHE_KEPT * scale) - headroom;
  return {
    scale,
    unit: MIB * scale,
    least: Math.min(most, PAGE_BYTES * Math.ceil(within(limits.leastTargetBytes, ram) / PAGE_BYTES)),
    most,
    room: Math.max(0, limits.roomBytes) || 0,
    target,
    actual,
    owed: Math.max(0, target - actual),
    coming: Math.max(0, actual - target),
    free,
    toldFree: told.free,
    stale: Math.max(0, told.free - Math.max(0, usable - reading.allocatedBytes)) || 0,
    guessedBytes,
    caches,
    spare: isBeside
      ? besides + Math.max(0, caches - BESIDE_CACHE * scale)
      : Math.max(free - headroom, yielding),
    sure: isBeside ? Infinity : other - headroom,
    ...counter,
    missing: missingOf(reading),
    stalls: reading.stalls,
    swappedIn: reading.swappedInBytes,
    swapped: reading.swappedInBytes + reading.swappedOutBytes,
    isBeside,
    statsSeconds,
    newerThan: (seconds) => !Number.isNaN(statsSeconds) && !(statsSeconds <= seconds),
  };
}

/**
 * The page cache that a guest does not count as available, and can give up all the same: Linux leaves out half of it, as long as that is less
 * than its kernel keeps free (si_mem_available(), mm/show_mem.c).
 */
function uncounted(told: { readonly free: number; readonly available: number }, kept: number): number {
  const counted = told.available - Math.max(0, told.free - kept);
  return Math.min(Math.max(0, counted) || 0, kept);
}

/** The memory that a guest has left where its balloon follows its working set. */
export function headroomBytes(ramBytes: number): number {
  return HEADROOM * scaleOf(ramBytes);
}

/** The memory that a guest has left beyond that where it could take nothing back when it runs out. */
export function firmHeadroomBytes(ramBytes: number): number {
  return MORE_HEADROOM * scaleOf(ramBytes);
}

function scaleOf(ramBytes: number): number {
  return Math.max(1, ramBytes / SMALL_GUEST);
}

export function wholePages(bytes: number): number {
  return Math.floor(bytes / PAGE_BYTES) * PAGE_BYTES;
}

/** The count of pages that were read again, by the best signal that the guest and its VMM have. */
function counterOf(reading: SizeReading): { signal: Signal; counted: number } {
  const { reclaimedBytes, readBytes, majorFaults } = reading;
  if (isCount(reclaimedBytes)) return { signal: 'reclaim', counted: reclaimedBytes };
  if (isCount(readBytes)) return { signal: 'reads', counted: readBytes };
  if (isCount(majorFaults)) return { signal: 'faults', counted: majorFaults * PAGE_BYTES };
  return { signal: 'none', counted: NaN };
}

function missingOf({ availableBytes, cacheBytes, givesOnOom }: SizeReading): Missing[] {
  const lacks = {
    available: !isCount(availableBytes),
    caches: !isCount(cacheBytes),
    'deflate-on-oom': !givesOnOom,
  };
  return (['available', 'caches', 'deflate-on-oom'] as const).filter((one) => lacks[one]);
}

function isCount(value: number): boolean {
  return value >= 0 && value < Infinity;
}

/** A claim as far as it can be true, less the memory that is not looked at. */
function claimed(bytes: number, most: number, lessBytes: number): number {
  return bytes >= 0 ? Math.max(0, Math.min(bytes, most) - lessBytes) : NaN;
}

function within(bytes: number, most: number): number {
  return bytes > 0 ? Math.min(bytes, most) : 0;
}
