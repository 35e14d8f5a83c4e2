import type { Columns } from './columns.js';

/**
 * Whether a whole quantum too much is handed out in the end rather than a part of one, or nothing beyond the amount: no part of a
 * quantum, or any part.
 */
export type Rounding = 'at least' | 'at most' | 'to the byte';

/**
 * Divides `amount` bytes over `rows` in proportion to their `weight`, to none more than its `cap`, and adds them to `to`.
 * Returns the bytes that were handed out. Where there is too little to give each row a quantum, those with the largest
 * caps get theirs: few large changes are better than many small ones.
 */
export function share(
  amount: number,
  rows: readonly number[],
  { cap, weight, quantum }: Pick<Columns, 'cap' | 'weight' | 'quantum'>,
  to: Float64Array,
  rounding: Rounding,
): number {
  let rest = amount;
  let whole = 0;
  for (const row of rows) whole += quantum[row] ?? 0;
  if (rest < whole) return largestFirst(rest, rows, { cap, quantum }, to, rounding);
  let open = rows;
  while (rest > 1 && open.length > 0) {
    let weights = 0;
    for (const row of open) weights += weight[row] ?? 0;
    if (weights <= 0) break;
    const each = rest / weights;
    const next: number[] = [];
    for (const row of open) {
      const room = (cap[row] ?? 0) - (to[row] ?? 0);
      const part = Math.min(room, each * (weight[row] ?? 0));
      to[row] = (to[row] ?? 0) + part;
      rest -= part;
      if (part < room) next.push(row);
    }
    if (next.length === open.length) break;
    open = next;
  }
  return amount - Math.max(0, rest);
}

function largestFirst(
  amount: number,
  rows: readonly number[],
  { cap, quantum }: Pick<Columns, 'cap' | 'quantum'>,
  to: Float64Array,
  rounding: Rounding,
): number {
  const room = (row: number): number => (cap[row] ?? 0) - (to[row] ?? 0);
  let rest = amount;
  for (const row of [...rows].sort((a, b) => room(b) - room(a) || a - b)) {
    if (rest <= 0) break;
    const least = quantum[row] ?? 0;
    const part = Math.min(room(row), rounding === 'at least' ? Math.max(rest, least) : rest);
    if (rounding === 'at most' && part < Math.min(room(row), least)) continue;
    to[row] = (to[row] ?? 0) + part;
    rest -= part;
  }
  return amount - rest;
}
