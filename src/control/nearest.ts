/** Words that were mistyped: the word that was most likely meant. */
import type { NextStep } from '../../protocol/control/refusal.js';

/** The word of `known` that `word` was most likely meant to be, or null when it is like none of them. */
export function nearest(word: string, known: readonly string[]): string | null {
  const wanted = word.slice(0, LONGEST).toLowerCase();
  let best: string | null = null;
  let least = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of known) {
    const edits = distance(wanted, candidate.toLowerCase());
    if (edits < least) [best, least] = [candidate, edits];
  }
  return best;
}

/** `": did you mean X?"`, or the whole choice, where it is like nothing that there is. */
export function choice(word: string, known: readonly string[]): NextStep {
  const meant = nearest(word, known);
  if (meant !== null) return `did you mean ${meant}?`;
  return known.length === 0 ? 'give none' : `give ${known.join(', ')}`;
}

const LONGEST = 40;

/** Letters to insert, remove, replace, or swap with the next one. */
function distance(from: string, to: string): number {
  let before: number[] = [];
  let row = Array.from({ length: to.length + 1 }, (_, n) => n);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      const without = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1);
      next.push(Math.min(replaced, without, swapped ? (before[j - 2] ?? 0) + 1 : Infinity));
    }
    [before, row] = [row, next];
  }
  return row[to.length] ?? 0;
}
