/** Manual pages in the language of man(7); `backticks` in a text mark what is written as it stands. */

export interface Entry {
  readonly term: string;
  readonly text: string;
  /** What belongs below it. */
  readonly below?: readonly Entry[];
}

export type Section = readonly [
  title: string,
  ...content: (string | readonly Entry[] | { readonly verbatim: string })[],
];

/** `name(section)`: one line in lists of pages says `summary`. */
export function manualPage(
  name: string,
  section: number,
  version: string,
  summary: string,
  sections: readonly Section[],
): string {
  const lines = [
    `.TH ${name.toUpperCase()} ${section} "" "balloond ${version}" "balloond"`,
    // Names and options stay in one piece.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${escape(name)} \\- ${escape(summary)}`,
    ...sections.flatMap(renderSection),
  ];
  return `${lines.join('\n')}\n`;
}

function renderSection([title, ...content]: Section): string[] {
  return [
    `.SH ${escape(title)}`,
    ...content.flatMap((part, index): string[] => {
      if (typeof part === 'string') return [...(index === 0 ? [] : ['.PP']), inline(part)];
      if ('verbatim' in part) {
        return ['.PP', '.nf', '.RS 4', ...part.verbatim.split('\n').map(escape), '.RE', '.fi'];
      }
      return part.flatMap(renderEntry);
    }),
  ];
}

function renderEntry({ term, text, below = [] }: Entry): string[] {
  const nested = below.length === 0 ? [] : ['.RS', ...below.flatMap(renderEntry), '.RE'];
  return ['.TP', `.B ${escape(term)}`, inline(text), ...nested];
}

function inline(text: string): string {
  return text
    .split('`')
    .map((part, index) => (index % 2 === 0 ? escape(part) : `\\fB${escape(part)}\\fR`))
    .join('')
    .replace(/^(?=[.'])/, '\\&');
}

function escape(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('"', '\\(dq')
    .replace(/^(?=[.'])/, '\\&');
}
