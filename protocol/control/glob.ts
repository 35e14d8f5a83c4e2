/** Patterns that were used before: the same few are asked for again and again, each time with all VMs. */
const known = new Map<string, RegExp>();
const MOST_KNOWN = 256;

/** Whether a pattern matches a name: `*` stands for any characters, `?` for one. */
export function globMatches(pattern: string, name: string): boolean {
  let matcher = known.get(pattern);
  if (matcher === undefined) {
    if (known.size === MOST_KNOWN) known.clear();
    known.set(pattern, (matcher = matcherOf(pattern)));
  }
  return matcher.test(name);
}

function matcherOf(pattern: string): RegExp {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 'u');
}

/** Whether the text is a pattern, and no name of one VM. */
export function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}
