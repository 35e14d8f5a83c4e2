/**
 * One line of a trace: the readings of the policy at one tick, of the RAM of the host and the VMs in it. A trace is NDJSON, oldest first. Bytes and seconds; null is
 * "not known". Names of VMs may come and go.
 */
export interface TraceLine {
  /** The version of the format. Lines without it are of version 1, which tells nothing of `flags` and page cache balloons. */
  readonly version: typeof TRACE_VERSION;
  /** Seconds since the epoch by the wall time at which the daemon started: they go on evenly, whoever sets the time. */
  readonly t: number;
  readonly totalBytes: number;
  readonly availableBytes: number;
  readonly vms: readonly TraceVm[];
}

export const TRACE_VERSION = 2;

/**
 * Facts of a VM that hold or do not: its driver runs and no operator has it in hand; memory that it gives up reaches the
 * host; its cgroup may be limited; it has a page cache balloon; it has no other balloon; its traditional balloon follows the
 * working set of its guest; its driver gives no memory back when the guest runs out of it.
 */
export const TRACE_FLAGS = [
  'movable',
  'takeable',
  'limitable',
  'self-sized',
  'unaskable',
  'sized',
  'firm',
] as const;
export type TraceFlag = (typeof TRACE_FLAGS)[number];

export interface TraceVm {
  readonly name: string;
  readonly band: string;
  readonly flags: readonly TraceFlag[];
  readonly ramBytes: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly targetBytes: number;
  readonly actualBytes: number;
  /** The most that the page cache balloon may hold, and the memory that it holds, as far as that is not on the host. */
  readonly cacheLimitBytes: number;
  readonly cachedBytes: number;
  /** The memory that the guest said it could do without, and the memory that was free. */
  readonly guestAvailableBytes: number | null;
  readonly guestFreeBytes: number | null;
  readonly stallPercent: number | null;
  readonly currentBytes: number | null;
  /** The memory of the VMM itself. */
  readonly overheadBytes: number;
  /** By how many times more than others it is moved at once, and waited for; absent: not at all. */
  readonly slowness?: number;
}
