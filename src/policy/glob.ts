export { globMatches } from '../../protocol/control/glob.js';

/** A name that both patterns match, or null when there is none. */
export function commonName(a: string, b: string): string | null {
  const seen = new Set<string>();
  const search = (i: number, j: number): string | null => {
    const key = `${i},${j}`;
    if (seen.has(key)) return null;
    seen.add(key);
    const x = a[i];
    const y = b[j];
    if (x === undefined && y === undefined) return '';
    if (x === '*') return search(i + 1, j) ?? (y === undefined ? null : ahead(y, search(i, j + 1)));
    if (y === '*') return search(i, j + 1) ?? (x === undefined ? null : ahead(x, search(i + 1, j)));
    if (x === undefined || y === undefined) return null;
    if (x !== y && x !== '?' && y !== '?') return null;
    return ahead(x === '?' ? y : x, search(i + 1, j + 1));
  };
  return search(0, 0);
}

/** A wildcard in the name stands for itself or for nothing. */
function ahead(letter: string, rest: string | null): string | null {
  if (rest === null) return null;
  return (letter === '*' ? '' : letter === '?' ? 'x' : letter) + rest;
}
