/**
 * One host and its guests, as simply as keeps what matters: a guest uses the memory that its workload wants as far as it
 * may, fills the rest with page cache in time, follows its target within the step, but keeps the hot part of the memory in use, and
 * waits for the memory that it takes back out of its balloon;
 * memory that it has touched stays on the host until the balloon takes it. A page cache balloon holds all memory that its
 * guest has no use for, up to its limit. There is no swap: a host that has nothing left stops everybody. No force is
 * modelled.
 */
import { MOVABLE, SELF_SIZED, TAKEABLE, UNASKABLE, vmTable, type VmTable } from '../policy/inputs.js';
import type { PolicySettings } from '../policy/settings.js';

/** What the host itself needs. */
const HOST_SHARE = 0.03;
/** Of what a guest uses: it does not give that up. */
const HOT_SHARE = 0.7;
/** Of its RAM: page cache that a guest fills in 10 s. */
const CACHE_SHARE = 0.002;
/** Memory that a guest with a need for it takes out of its balloon, in bytes a second (`npm run bench -- real`, deflating, one VM). */
const DEFLATED_BYTES_PER_SECOND = 6.9 * 2 ** 30;
/** A guest that lacks a quarter of what it wants does nothing but wait. */
const STALL_SLOPE = 4;

/** Where demand comes from: a workload, or a trace. */
interface Demand {
  readonly ramBytes: Float64Array;
  readonly wantBytes: Float64Array;
}

export class HostModel {
  readonly table: VmTable;
  readonly totalBytes: number;
  readonly names: readonly string[];
  availableBytes: number;
  /** Seconds, by band: of all its VMs together. */
  readonly stallSeconds: Float64Array;
  readonly vmSeconds: Float64Array;
  /** In which the host had nothing left. */
  oomSeconds = 0;
  readonly #demand: Demand;
  /** Of the last step, by VM. */
  readonly #usedBytes: Float64Array;
  readonly #waitedSeconds: Float64Array;

  /** `bandOf` and `rules` say what VMs are entitled to. */
  constructor(
    demand: Demand,
    totalBytes: number,
    names: readonly string[],
    bandOf: (row: number) => number,
    { bands }: Pick<PolicySettings, 'bands'>,
  ) {
    const count = demand.ramBytes.length;
    this.#demand = demand;
    this.#usedBytes = new Float64Array(count);
    this.#waitedSeconds = new Float64Array(count);
    this.totalBytes = totalBytes;
    this.names = names;
    this.availableBytes = totalBytes * (1 - HOST_SHARE);
    this.stallSeconds = new Float64Array(bands.length);
    this.vmSeconds = new Float64Array(bands.length);
    this.table = vmTable(count);
    const { table } = this;
    for (let row = 0; row < count; row++) {
      const ram = demand.ramBytes[row] ?? 0;
      const index = bandOf(row);
      const band = bands[index];
      if (band === undefined) throw new RangeError(`no band ${index}`);
      const bytes = (amount: { bytes: number } | { share: number }): number =>
        Math.min(ram, 'share' in amount ? amount.share * ram : amount.bytes);
      table.band[row] = index;
      table.flags[row] = MOVABLE | TAKEABLE;
      table.ramBytes[row] = ram;
      table.minBytes[row] = Math.min(bytes(band.min), bytes(band.max));
      table.maxBytes[row] = bytes(band.max);
      table.weight[row] = band.weight;
    }
  }

  /** Guests live on for `stepSeconds` with the targets they have. */
  step(stepSeconds: number): void {
    const { table } = this;
    const { count, flags, ramBytes, targetBytes, actualBytes, cacheLimitBytes, cachedBytes } = table;
    const { currentBytes, overheadBytes, availableBytes, freeBytes } = table;
    const { wantBytes } = this.#demand;
    const cacheShare = CACHE_SHARE * (stepSeconds / 10);
    let used = 0;
    for (let row = 0; row < count; row++) {
      const ram = ramBytes[row] ?? 0;
      // In a trace, a VM that is not there yet, or no more.
      if (ram === 0) {
        currentBytes[row] = 0;
        continue;
      }
      const want = Math.min(ram, wantBytes[row] ?? 0);
      const keeps = HOT_SHARE * want;
      const target = targetBytes[row] ?? 0;
      const actual =
        target > ram - keeps ? Math.max(Math.min(actualBytes[row] ?? 0, target), ram - keeps) : target;
      const usable = ram - actual;
      const uses = want < usable ? want : usable;
      const grown = Math.max(
        0,
        Math.min((actualBytes[row] ?? 0) - actual, uses - (this.#usedBytes[row] ?? 0)),
      );
      this.#usedBytes[row] = uses;
      const overhead = overheadBytes[row] ?? 0;
      const before = (currentBytes[row] ?? 0) - overhead;
      const flagged = flags[row] ?? 0;
      const limit = (flagged & SELF_SIZED) === 0 ? 0 : (cacheLimitBytes[row] ?? 0);
      const cached = Math.min(limit, usable - uses);
      const touched = Math.min(usable - cached, Math.max(uses, before + cacheShare * ram));
      const tells = (flagged & UNASKABLE) === 0;
      actualBytes[row] = actual;
      cachedBytes[row] = cached;
      currentBytes[row] = touched + overhead;
      availableBytes[row] = tells ? usable - uses : NaN;
      freeBytes[row] = tells ? usable - touched - cached : NaN;
      used += touched + overhead;
      const stall = want > usable ? Math.min(1, (STALL_SLOPE * (want - usable)) / want) : 0;
      table.stallPercent[row] = 100 * stall;
      const band = table.band[row] ?? 0;
      const waited = Math.min(stepSeconds, stall * stepSeconds + grown / DEFLATED_BYTES_PER_SECOND);
      this.#waitedSeconds[row] = waited;
      this.stallSeconds[band] = (this.stallSeconds[band] ?? 0) + waited;
      this.vmSeconds[band] = (this.vmSeconds[band] ?? 0) + stepSeconds;
    }
    this.availableBytes = this.totalBytes * (1 - HOST_SHARE) - used;
    if (this.availableBytes >= 0) return;
    this.availableBytes = 0;
    this.oomSeconds += stepSeconds;
    for (let row = 0; row < count; row++) {
      if (ramBytes[row] === 0) continue;
      const band = table.band[row] ?? 0;
      const rest = stepSeconds - (this.#waitedSeconds[row] ?? 0);
      this.stallSeconds[band] = (this.stallSeconds[band] ?? 0) + rest;
    }
  }
}
