/** Whether a pattern matches a name: `*` stands for any characters, `?` for one. */
export function globMatches(pattern: string, name: string): boolean {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 'u').test(name);
}

/** Whether the text is a pattern, and no name of one VM. */
export function isPattern(text: string): boolean {
  return /[*?]/.test(text);
}
