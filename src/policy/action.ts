/** What plan() wants done, each with its reason. Rows are those of the table that was planned for. */

export type Cause =
  /** Taken: the host has less available than its reserve. */
  | 'host-short'
  /** Taken: a VM that is to have it first needs it. */
  | 'needed-elsewhere'
  /** Taken: the VM has more than its ceiling. */
  | 'above-ceiling'
  /** Its page cache balloon may hold all memory above its floor, since the host is short; or less, since its floor was raised. */
  | 'sizes-itself'
  /** Its page cache balloon may hold more, before the host is short. */
  | 'makes-room'
  /** Its page cache balloon may hold less: the host has room for the guest's page cache. */
  | 'keeps-cache'
  /** Given: its guest is short of memory. */
  | 'guest-short'
  /** Given: the VM has less than its floor. */
  | 'below-floor'
  /** Given: the host has memory over again. */
  | 'refund'
  /** Force: it did not yield in its grace time. */
  | 'not-yielding'
  /** Force undone: it yielded. */
  | 'yielded'
  /** Force undone: nobody needs it any more. */
  | 'not-needed'
  /** Force undone, and the target taken back: all that may be done did not help. */
  | 'withstood';

/** The row of a counterpart that is the host and no VM. */
export const HOST = -1;

export interface Reason {
  readonly cause: Cause;
  readonly hostAvailableBytes: number;
  readonly hostTotalBytes: number;
  readonly reserveBytes: number;
  /** What the VM did without, as far as the host believes it. */
  readonly idleBytes: number;
  /** The memory that its guest shed, or is about to: taken along, that brings the host nothing. */
  readonly shedBytes: number;
  readonly stallPercent: number;
  /** What it owes its balloon. */
  readonly missingBytes: number;
  /** The row that memory was taken for, or that most of it came from; or HOST. */
  readonly counterpart: number;
}

/** Force: what the policy holds the VM's cgroup to, null where it holds it to nothing. */
export interface LimitAction {
  readonly kind: 'limit';
  readonly row: number;
  readonly rung: number;
  readonly highBytes: number | null;
  readonly maxBytes: number | null;
  readonly reason: Reason;
}

export interface TargetAction {
  readonly kind: 'target';
  readonly row: number;
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly reason: Reason;
}

/** How much its page cache balloon may hold. */
interface CacheLimitAction {
  readonly kind: 'cache-limit';
  readonly row: number;
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly reason: Reason;
}

interface KillAction {
  readonly kind: 'kill';
  readonly row: number;
  readonly reason: Reason;
}

export type Action = LimitAction | TargetAction | CacheLimitAction | KillAction;
