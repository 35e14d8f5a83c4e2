/** What the page at the metrics address is told again and again: just what it shows. */
export interface LiveVm {
  readonly name: string;
  readonly state: string;
  /** Of the policy; null without one. */
  readonly band: string | null;
  readonly ramBytes: number;
  readonly targetBytes: number;
  readonly actualBytes: number;
  /** The guest has yet to say how much that is. */
  readonly actualUnknown: boolean;
  /** What its page cache balloon holds; null: it has none. */
  readonly cacheBytes: number | null;
  /** What guest memory takes up on the host. */
  readonly allocatedBytes: number;
  readonly verdict: string | null;
}

export interface LiveTick {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly hostTotalBytes: number;
  readonly hostAvailableBytes: number;
  readonly vms: readonly LiveVm[];
}

/** Ticks that a page is told of at once when it comes, and hence all that need be kept. */
export const LIVE_TICKS = 150;
