/** Plain text layout: aligned columns and wrapped paragraphs. Knows nothing of colours or VMs. */

/** Letters that fill two columns of a terminal, and marks that fill none. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{16fe0}-\u{1b2ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const NARROWEST = /[\p{Mn}\p{Me}\p{Cf}]/u;
const PLAIN = /^[\x20-\x7e]*$/;

/** Columns of a terminal that `text` fills. */
export function columnsOf(text: string): number {
  if (PLAIN.test(text)) return text.length;
  return Array.from(text, (letter) =>
    WIDE.test(letter) ? 2 : NARROWEST.test(letter) ? 0 : 1,
  ).reduce<number>((sum, columns) => sum + columns, 0);
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

/** At most `width` columns of `text`; what is left out is an ellipsis. */
export function shorten(text: string, width: number): string {
  if (columnsOf(text) <= width) return text;
  let kept = '';
  for (const letter of text) {
    if (columnsOf(kept + letter) > width - 1) break;
    kept += letter;
  }
  return width < 1 ? '' : `${kept}…`;
}
