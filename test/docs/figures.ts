/**
 * Figures that stand in more than one place: docs/figures.json has each once, with the command that measures it and the words
 * around it in each page. `node out/test/docs/figures.js` writes them into the pages.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './page.js';

export interface Figure {
  readonly value: string;
  /** The command that measures it, or the file that sets it. */
  readonly from: string;
  /** Page and words of each place: `{}` stands for the figure, `*` for anything up to the end of a table's cell. */
  readonly shown: readonly (readonly [page: string, words: string])[];
}

export function readFigures(): Record<string, Figure> {
  return JSON.parse(readFileSync(join(ROOT, 'docs/figures.json'), 'utf8')) as Record<string, Figure>;
}

/** The page with these figures. Throws where words stand nowhere, or more than once. */
export function withFigures(page: string, source: string, figures: Record<string, Figure>): string {
  let text = source;
  for (const [name, { value, shown }] of Object.entries(figures)) {
    for (const [path, words] of shown) {
      if (path !== page) continue;
      const [before = '', after = ''] = words.split('{}').map(pattern);
      const found = new RegExp(`(${before})([\\d.,]+?)(${after})`, 'g');
      const count = [...text.matchAll(found)].length;
      if (count !== 1)
        throw new Error(`${name}: "${words}" stands ${count} times in ${page}, and is to stand once`);
      text = text.replace(found, (_, left: string, _figure, right: string) => left + value + right);
    }
  }
  return text;
}

/** Lines are broken anywhere, and words may be emphasised. */
function pattern(words: string): string {
  return words
    .replaceAll(/[|().+?[\]\\^$]/g, '\\$&')
    .replaceAll(' ', '\\s+')
    .replaceAll('*', '[^|\n]*?');
}

if (process.argv[1] === import.meta.filename) {
  const figures = readFigures();
  for (const page of new Set(Object.values(figures).flatMap(({ shown }) => shown.map(([path]) => path)))) {
    const path = join(ROOT, page);
    const source = readFileSync(path, 'utf8');
    const text = withFigures(page, source, figures);
    if (text !== source) writeFileSync(path, text);
    console.log(`${page}: ${text === source ? 'as it was' : 'written'}`);
  }
}
