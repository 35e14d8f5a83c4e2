/** The word that somebody most likely meant. */

/** Of `candidates` the one that takes the fewest edits to become `word`, or null when none is near. */
export function nearest(word: string, candidates: readonly string[]): string | null {
  const most = Math.min(3, Math.ceil(word.length / 3));
  const near = candidates
    .map((candidate) => ({ candidate, edits: edits(word.toLowerCase(), candidate.toLowerCase()) }))
    .filter((one) => one.edits <= most)
    .sort((a, b) => a.edits - b.edits);
  return near[0]?.candidate ?? null;
}

/** Letters to add, leave out, replace, or exchange with the next one, until `a` is `b`. */
function edits(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, n) => n);
  for (let row = 1; row <= a.length; row++) {
    const next = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1] ? 0 : 1;
      const swapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      next.push(
        Math.min(
          (last[column] ?? 0) + 1,
          (next[column - 1] ?? 0) + 1,
          (last[column - 1] ?? 0) + same,
          swapped ? (before[column - 2] ?? Infinity) + 1 : Infinity,
        ),
      );
    }
    [before, last] = [last, next];
  }
  return last[b.length] ?? 0;
}
