/**
 * The arguments of plan(). VMs are rows of a table of arrays, since one function serves a daemon with a few VMs and a
 * simulator with ten thousand. Sizes are bytes, times seconds of any one clock, NaN is "not known".
 */
import type { TraceFlag } from '../../protocol/policy-trace.js';

/** The bits of a row's flags, by their names in a trace. */
export const FLAGS = {
  movable: 1,
  takeable: 2,
  limitable: 4,
  'self-sized': 8,
  unaskable: 16,
  sized: 32,
  firm: 64,
} as const satisfies Record<TraceFlag, number>;

/** The target may be changed; memory that the VM gives up reaches the host; its cgroup may be limited. */
export const MOVABLE = FLAGS.movable;
export const TAKEABLE = FLAGS.takeable;
export const LIMITABLE = FLAGS.limitable;
/** The VM has a page cache balloon, by which its guest gives and takes by itself; it has no other, so it cannot be asked. */
export const SELF_SIZED = FLAGS['self-sized'];
export const UNASKABLE = FLAGS.unaskable;
/** Its balloon follows the working set of its guest (working-set.ts): memory that the host has left over is not given back to it. */
export const SIZED = FLAGS.sized;
/**
 * Its driver gives no memory back when the guest runs out of it (no VIRTIO_BALLOON_F_DEFLATE_ON_OOM): the guest ends a program or
 * panics where its balloon holds memory that the guest needs.
 */
export const FIRM = FLAGS.firm;

export interface HostReading {
  readonly nowSeconds: number;
  readonly totalBytes: number;
  readonly availableBytes: number;
  /** Where that is of a part of the host, what the host has available beyond that part; absent: nothing, or it is of all of the host. */
  readonly beyondBytes?: number;
  /** Share of time in which some task waited for memory lately, in percent (PSI "some avg10"). */
  readonly pressurePercent: number;
}

export interface VmTable {
  readonly count: number;
  /** Index in the configuration's bands: 0 is the highest. */
  readonly band: Uint8Array;
  readonly flags: Uint8Array;
  readonly ramBytes: Float64Array;
  /** Floor and ceiling of what the guest may use; 0 <= min <= max <= ram. */
  readonly minBytes: Float64Array;
  readonly maxBytes: Float64Array;
  readonly weight: Float64Array;
  /** Of the balloon. */
  readonly targetBytes: Float64Array;
  readonly actualBytes: Float64Array;
  /** Of the page cache balloon: the most it may hold, and what it holds, as far as the host has not got it. */
  readonly cacheLimitBytes: Float64Array;
  readonly cachedBytes: Float64Array;
  /** What the guest says it could do without, and what it says is free: claims, which the host's own readings bound. */
  readonly availableBytes: Float64Array;
  readonly freeBytes: Float64Array;
  /** Of the memory that it could do without, the part that it did without for some time; NaN: it has not said. */
  readonly steadyBytes: Float64Array;
  /** How old these claims are; Infinity: so old that what the guest began to use since is not known. */
  readonly statsAgeSeconds: Float64Array;
  /** By how many times more than others it is moved at once, and waited for; 0: a balloon that the daemon serves. */
  readonly slowness: Float64Array;
  /** Percent of time in which it waits for memory, by its cgroup's PSI or by its own counters. */
  readonly stallPercent: Float64Array;
  /** memory.current of its cgroup. */
  readonly currentBytes: Float64Array;
  /** What the VMM itself takes, which its limits must leave room for. */
  readonly overheadBytes: Float64Array;
}

export interface Band {
  readonly name: string;
  /** Whether a VM that yields to nothing else may be killed. */
  readonly kill: boolean;
}

/** The memory that VMs share, and HostReading tells of: the host's, the part of it that VMs may have, or a pool of huge pages. */
export type StockKind = 'host' | 'part of host' | { readonly poolPageBytes: number };

export interface PolicyConfig {
  /** Highest first. */
  readonly bands: readonly Band[];
  readonly stock: StockKind;
  /** What is to stay available on the host, of its memory. */
  readonly reserveShare: number;
  /** The most of a VM's idle memory that may be taken while others need it: ESX's idle-memory tax. */
  readonly idleTax: number;
  /** Of a VM's RAM a second: how fast a target rises in calm, and when a higher band or the host is in need. */
  readonly rampShare: number;
  readonly urgentRampShare: number;
  /** How long a guest may take to yield half of what it owes; then how long each rung of force lasts. */
  readonly willSeconds: number;
  readonly forceSeconds: number;
  /** How long a VM is left alone in the one direction after it was moved in the other. */
  readonly holdSeconds: number;
}

const COLUMNS = [
  'ramBytes',
  'minBytes',
  'maxBytes',
  'weight',
  'targetBytes',
  'actualBytes',
  'cacheLimitBytes',
  'cachedBytes',
  'availableBytes',
  'freeBytes',
  'steadyBytes',
  'statsAgeSeconds',
  'stallPercent',
  'currentBytes',
  'overheadBytes',
  'slowness',
] as const;

/** The columns of sizes, shares, weights and times. */
export type TableColumn = (typeof COLUMNS)[number];

/** A table of rows that are all zero. */
export function vmTable(count: number): VmTable {
  const columns = Object.fromEntries(COLUMNS.map((name) => [name, new Float64Array(count)]));
  return {
    count,
    band: new Uint8Array(count),
    flags: new Uint8Array(count),
    ...(columns as Record<TableColumn, Float64Array>),
  };
}
