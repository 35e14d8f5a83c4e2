/**
 * The line of a key in a TOML text, as `socket.0.path`; of its table where the key has no line of its own, and null
 * where neither has. The parser does not keep places.
 */
export function lineOf(text: string, where: string): number | null {
  const wanted = where.split('.');
  const counts = new Map<string, number>();
  let table: string[] = [];
  let best: { line: number; depth: number } | null = null;
  const note = (path: readonly string[], line: number): void => {
    if (!path.every((part, index) => part === wanted[index])) return;
    if (best === null || path.length > best.depth) best = { line, depth: path.length };
  };
  text.split('\n').forEach((content, index) => {
    const header = /^\s*(\[\[?)\s*([^\]]+?)\s*\]/.exec(content);
    if (header !== null) {
      const [, brackets, name = ''] = header;
      if (brackets === '[[') counts.set(name, (counts.get(name) ?? -1) + 1);
      table = name.split('.').flatMap((_, depth, parts) => {
        const count = counts.get(parts.slice(0, depth + 1).join('.'));
        return count === undefined ? [parts[depth] ?? ''] : [parts[depth] ?? '', String(count)];
      });
      note(table, index + 1);
      return;
    }
    const key = /^\s*"?([\w.-]+)"?\s*=/.exec(content)?.[1];
    if (key !== undefined) note([...table, ...key.split('.')], index + 1);
  });
  return (best as { line: number } | null)?.line ?? null;
}
