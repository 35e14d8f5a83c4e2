/**
 * One line of a trace: what the policy saw at one tick. A trace is NDJSON, oldest first. Bytes and seconds; null is
 * "not known". Names of VMs may come and go.
 */
export interface TraceLine {
  /** Seconds since the epoch by the wall time at which the daemon started: they go on evenly, whoever sets the time. */
  readonly t: number;
  readonly totalBytes: number;
  readonly availableBytes: number;
  readonly vms: readonly TraceVm[];
}

export interface TraceVm {
  readonly name: string;
  readonly band: string;
  readonly ramBytes: number;
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly targetBytes: number;
  readonly actualBytes: number;
  /** What the guest said it could do without, and what was free. */
  readonly guestAvailableBytes: number | null;
  readonly guestFreeBytes: number | null;
  readonly stallPercent: number | null;
  readonly currentBytes: number | null;
}
