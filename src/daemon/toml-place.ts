/** Where in a TOML file a value is: the parser does not tell. */

export interface Place {
  line: number;
  column: number;
}

const HEADER = /^\s*(\[\[?)\s*([^\]]+?)\s*\]/;
const KEY = /^\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=/;
const PART = /"[^"]*"|'[^']*'|[\w-]+/g;
const MULTI_LINE_QUOTES = /"""|'''/g;

/**
 * The line that says the most of `path` (keys, and indices of tables in arrays), in a file that is TOML; both count
 * from 1. A value inside an array or inline table is where its key is.
 */
export function placeInToml(text: string, path: readonly string[]): Place {
  let best = { place: { line: 1, column: 1 }, depth: 0 };
  const tables = new Map<string, number>();
  let prefix: string[] = [];
  let inText = false;
  for (const [index, line] of text.split('\n').entries()) {
    const began = inText;
    if ((line.match(MULTI_LINE_QUOTES) ?? []).length % 2 === 1) inText = !inText;
    if (began) continue;
    const header = HEADER.exec(line);
    const key = header === null ? KEY.exec(line) : null;
    if (header !== null) prefix = tablePath(parts(header[2] ?? ''), header[1] === '[[', tables);
    const here = [...prefix, ...(key === null ? [] : parts(key[1] ?? ''))];
    if ((header ?? key) === null || here.length <= best.depth) continue;
    if (here.length > path.length || here.some((part, at) => part !== path[at])) continue;
    best = { place: { line: index + 1, column: line.search(/\S/) + 1 }, depth: here.length };
  }
  return best.place;
}

/** A name that stands for an array of tables means its last one. */
function tablePath(names: readonly string[], opens: boolean, tables: Map<string, number>): string[] {
  const path: string[] = [];
  for (const [at, name] of names.entries()) {
    path.push(name);
    const id = path.join('\0');
    const known = tables.get(id);
    const last = at === names.length - 1;
    if (opens && last) tables.set(id, (known ?? -1) + 1);
    const index = tables.get(id);
    if (index !== undefined) path.push(String(index));
  }
  return path;
}

function parts(name: string): string[] {
  return (name.match(PART) ?? []).map((part) => part.replace(/^(["'])(.*)\1$/, '$2'));
}
