/** Plain text layout: aligned columns and wrapped paragraphs. Knows nothing of colours or VMs. */

/** Letters that fill two columns of a terminal, and marks that fill none. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{16fe0}-\u{1b2ff}\u{1f1e6}-\u{1f1ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}|\ufe0f/u;
const NARROWEST = /^[\p{Mn}\p{Me}\p{Cf}]*$/u;
const PLAIN = /^[\x20-\x7e]*$/;
const ELLIPSIS = '…';

let segmenter: Intl.Segmenter | null = null;

/** What a reader takes for one letter each: marks and joined emoji stay with what they belong to. */
function lettersOf(text: string): string[] {
  if (PLAIN.test(text)) return text.split('');
  segmenter ??= new Intl.Segmenter();
  return Array.from(segmenter.segment(text), ({ segment }) => segment);
}

function columnsOfLetter(letter: string): number {
  return WIDE.test(letter) ? 2 : NARROWEST.test(letter) ? 0 : 1;
}

/** Columns of lines where no terminal says how wide it is. */
export const COLUMNS_ELSEWHERE = 100;

/** Columns of a terminal that `text` fills. */
export function columnsOf(text: string): number {
  if (PLAIN.test(text)) return text.length;
  return lettersOf(text).reduce((sum, letter) => sum + columnsOfLetter(letter), 0);
}

/** Rows as lines, two blanks between columns; `align` has `<` or `>` for each column. */
export function alignColumns(rows: readonly (readonly string[])[], align: string): string[] {
  const widths = Array.from(align, (_, column) =>
    rows.reduce((most, row) => Math.max(most, columnsOf(row[column] ?? '')), 0),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const blanks = ' '.repeat((widths[column] ?? 0) - columnsOf(cell));
        return align[column] === '>' ? blanks + cell : cell + blanks;
      })
      .join('  ')
      .trimEnd(),
  );
}

/** Words of `text` in lines of at most `width` characters; a longer word has a line of its own. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return line === '' ? lines : [...lines, line];
}

/** `1 VM`, `2 VMs`. */
export function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}

/** The letters that fit into `width` columns, from the first on. */
function fitting(letters: readonly string[], width: number): string[] {
  const fit: string[] = [];
  let rest = width;
  for (const letter of letters) {
    rest -= columnsOfLetter(letter);
    if (rest < 0) break;
    fit.push(letter);
  }
  return fit;
}

/** At most `width` columns of `text`; what is left out is an ellipsis at the end. */
export function shorten(text: string, width: number): string {
  if (columnsOf(text) <= width) return text;
  return width < 1 ? '' : `${fitting(lettersOf(text), width - 1).join('')}${ELLIPSIS}`;
}

/** At most `width` columns of `text`: the first `head` of them, an ellipsis, and the end. */
function shortenMiddle(text: string, width: number, head = Math.floor((width - 1) / 2)): string {
  if (columnsOf(text) <= width) return text;
  if (width < 1) return '';
  const letters = lettersOf(text);
  const first = fitting(letters, head).join('');
  const last = fitting(letters.toReversed(), width - 1 - columnsOf(first));
  return `${first}${ELLIPSIS}${last.toReversed().join('')}`;
}

/**
 * Each name in at most `width` columns, with an ellipsis at one place in all of them: in the middle, or where it leaves
 * most of the names different from each other.
 */
export function shortenNames(names: readonly string[], width: number): string[] {
  const cut = (head: number): string[] => names.map((name) => shortenMiddle(name, width, head));
  const different = (texts: readonly string[]): number => new Set(texts).size;
  const middle = Math.max(0, Math.floor((width - 1) / 2));
  const most = different(names);
  let best = cut(middle);
  for (let away = 1; away <= middle + 1 && different(best) < most; away++) {
    for (const head of [middle - away, middle + away]) {
      if (head < 0 || head > width - 1) continue;
      const texts = cut(head);
      if (different(texts) > different(best)) best = texts;
    }
  }
  return best;
}
