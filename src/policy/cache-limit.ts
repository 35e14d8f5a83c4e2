/**
 * The most that page cache balloons may hold. A guest pays for each page of its page cache that it reads again, so it keeps
 * its page cache while the host has room. Before the host is short, balloons may hold as much more as the host lacks; once it
 * is short, all memory above the floor.
 */
import type { Cause } from './action.js';
import { at } from './columns.js';
import { PAGE_BYTES } from './facts.js';
import { share } from './share.js';
import { Column, get } from './state.js';
import type { Turn } from './turn.js';

/** Sets the limit of each page cache balloon whose limit should be another one. */
export function limitCaches(turn: Turn): void {
  const { facts } = turn;
  const { selfSized, tight } = facts;
  if (selfSized.length === 0) return;
  const limits = new Map(
    selfSized.map((row) => [row, tight ? Infinity : at(facts.vms.cacheLimitBytes, row)]),
  );
  if (!tight && facts.cacheLackBytes > 0) grow(turn, limits);
  else if (!tight && facts.cacheRoomBytes > 0) shrink(turn, limits);
  for (const [row, bytes] of limits) setLimit(turn, row, Math.min(bytes, facts.mostCached(row)));
}

/** Lets balloons that hold all that they may hold more, the lowest band first. */
function grow(turn: Turn, limits: Map<number, number>): void {
  const { facts, columns } = turn;
  let lack = facts.cacheLackBytes;
  for (let band = facts.config.bands.length - 1; band >= 0 && lack > 0; band--) {
    const from = new Map<number, number>();
    for (const row of facts.selfSized) {
      const limit = at(facts.vms.cacheLimitBytes, row);
      const isFull = at(facts.vms.cachedBytes, row) >= limit - at(columns.quantum, row);
      // Memory that the host does not have in any case brings it nothing.
      const base = Math.max(limit, at(columns.shed, row));
      if (at(facts.vms.band, row) === band && isFull && base < facts.mostCached(row)) from.set(row, base);
    }
    const parts = divide(turn, lack, from, (row, base) => facts.mostCached(row) - base, 'at least');
    for (const [row, part] of parts) {
      lack -= part;
      if (part > 0) limits.set(row, (from.get(row) ?? 0) + part);
    }
  }
}

/** Takes away from what balloons may hold, the highest band first, and no faster than targets fall. */
function shrink(turn: Turn, limits: Map<number, number>): void {
  const { facts } = turn;
  let room = facts.cacheRoomBytes;
  for (let band = 0; band < facts.config.bands.length && room > 0; band++) {
    const from = new Map<number, number>();
    for (const row of facts.selfSized) {
      if (at(facts.vms.band, row) !== band || turn.since(row, Column.letSeconds) < facts.config.holdSeconds)
        continue;
      from.set(row, Math.min(at(facts.vms.cacheLimitBytes, row), at(facts.vms.cachedBytes, row)));
    }
    const parts = divide(turn, room, from, (row, base) => Math.min(base, turn.downRamp(row)), 'at most');
    for (const [row, part] of parts) {
      room -= part;
      limits.set(row, (from.get(row) ?? 0) - part);
    }
  }
}

/** The part of each of these rows in an amount, by their weights. */
function divide(
  { facts, columns }: Turn,
  amount: number,
  from: ReadonlyMap<number, number>,
  cap: (row: number, base: number) => number,
  rounding: 'at least' | 'at most',
): Map<number, number> {
  const parts = new Float64Array(facts.vms.count);
  for (const [row, base] of from) {
    columns.cap[row] = cap(row, base);
    columns.weight[row] = rounding === 'at most' ? at(facts.vms.weight, row) : 1 / at(facts.vms.weight, row);
  }
  const rows = [...from.keys()];
  share(amount, rows, columns, parts, rounding);
  return new Map(rows.map((row) => [row, at(parts, row)]));
}

function setLimit(turn: Turn, row: number, bytes: number): void {
  const { facts, columns, next } = turn;
  const fromBytes = at(facts.vms.cacheLimitBytes, row);
  const most = facts.mostCached(row);
  const toBytes = Math.floor(bytes / PAGE_BYTES) * PAGE_BYTES;
  const isEnd = toBytes === 0 || toBytes === most;
  if (toBytes === fromBytes || (!isEnd && Math.abs(toBytes - fromBytes) < at(columns.quantum, row))) return;
  const cause: Cause =
    toBytes === most || fromBytes > most
      ? 'sizes-itself'
      : toBytes > fromBytes
        ? 'makes-room'
        : 'keeps-cache';
  turn.actions.push({ kind: 'cache-limit', row, fromBytes, toBytes, reason: turn.reason(row, cause) });
  if (toBytes < fromBytes) return;
  // Memory that was on its way before this plan is counted already.
  const waited = facts.host.nowSeconds - get(next, Column.letSeconds, row) < facts.config.willSeconds;
  turn.spareBytes += facts.givesByItself(row, toBytes) - (waited ? facts.givesByItself(row, fromBytes) : 0);
  turn.remember(row, Column.letSeconds, facts.host.nowSeconds);
}
