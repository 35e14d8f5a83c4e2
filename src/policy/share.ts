/**
 * Divides `amount` over `rows` in proportion to `weight`, to nobody more than its `cap`, and adds it to `out`. Returns
 * what was handed out. Where there is too little to give everybody a quantum, those with the largest caps get theirs:
 * few large changes are better than many small ones. `beyond`: rather a whole quantum too much than a part of one.
 */
export function share(
  amount: number,
  rows: readonly number[],
  cap: Float64Array,
  weight: Float64Array,
  quantum: Float64Array,
  out: Float64Array,
  beyond: boolean,
): number {
  let left = amount;
  let whole = 0;
  for (const row of rows) whole += quantum[row] ?? 0;
  if (left < whole) return largestFirst(left, rows, cap, quantum, out, beyond);
  let open = rows;
  while (left > 1 && open.length > 0) {
    let weights = 0;
    for (const row of open) weights += weight[row] ?? 0;
    if (weights <= 0) break;
    const each = left / weights;
    const next: number[] = [];
    for (const row of open) {
      const room = (cap[row] ?? 0) - (out[row] ?? 0);
      const part = Math.min(room, each * (weight[row] ?? 0));
      out[row] = (out[row] ?? 0) + part;
      left -= part;
      if (part < room) next.push(row);
    }
    if (next.length === open.length) break;
    open = next;
  }
  return amount - Math.max(0, left);
}

function largestFirst(
  amount: number,
  rows: readonly number[],
  cap: Float64Array,
  quantum: Float64Array,
  out: Float64Array,
  beyond: boolean,
): number {
  const room = (row: number): number => (cap[row] ?? 0) - (out[row] ?? 0);
  let left = amount;
  for (const row of [...rows].sort((a, b) => room(b) - room(a) || a - b)) {
    if (left <= 0) break;
    const part = Math.min(room(row), beyond ? Math.max(left, quantum[row] ?? 0) : left);
    if (!beyond && part < Math.min(room(row), quantum[row] ?? 0)) continue;
    out[row] = (out[row] ?? 0) + part;
    left -= part;
  }
  return amount - left;
}
