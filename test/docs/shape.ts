/** What a command printed beside what a page shows: alike where nothing differs but figures, times and spaces. */

const SIZE = /\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)(?![a-zA-Z])/g;
const TIME = /\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g;
const NUMBER = /\b\d+(\.\d+)?\b/g;
/** One column a moment, whose height is a figure. */
const SPARKLINE = /[▁▂▃▄▅▆▇█]+/gu;

/** A figure is one that follows no letter: those of names, such as `web-1`, stay. */
export function shape(text: string): string {
  return text
    .replaceAll(TIME, '<time>')
    .replaceAll(SIZE, '<size>')
    .replaceAll(/(?<![\w-])\d+(\.\d+)?(?![\w.])/g, (figure) => figure.replaceAll(NUMBER, '<n>'))
    .replaceAll(SPARKLINE, '<line>')
    .split('\n')
    .map((line) => line.replaceAll(/\s+/g, ' ').trim())
    .join('\n')
    .trim();
}

/** Whether a program printed what the page shows. A line `...` of the page stands for any lines. */
export function isAsShown(printed: string, shown: string, exact: boolean): boolean {
  const form = exact ? (text: string) => text.trimEnd() : shape;
  return matches(form(printed).split('\n'), form(shown).split('\n'));
}

function matches(printed: readonly string[], shown: readonly string[]): boolean {
  const [line, ...rest] = shown;
  if (line === undefined) return printed.length === 0;
  if (line === '...')
    return printed.some((_, skipped) => matches(printed.slice(skipped), rest)) || rest.length === 0;
  return printed[0] === line && matches(printed.slice(1), rest);
}
