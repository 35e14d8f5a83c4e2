/** The commented example file: every key with its default, so that taking a # away changes nothing yet. */
import { SCHEMA_PATH } from './json-schema.js';
import { TABLE_WORDS, type KeyWords } from './words.js';

const WIDTH = 100;

/** A line that begins with `# ` is text; one that begins with `#` alone becomes a setting without it. */
export function exampleFile(): string {
  const lines = [
    `#:schema ${SCHEMA_PATH}`,
    ...comment(
      'Configuration of balloond: balloond.toml(5) has more on it. Each key is shown with its default, or with an example where the text says so. Remove the # before a key, and before the [table] that it stands in, to set it. Then run `balloond --check-config`, and `balloonctl reload`.',
    ),
    ...comment(
      'Files in /etc/balloond.toml.d whose names end with .toml are read after this one: their keys win, their [[socket]] and [[vm]] are added, and their [[policy.band]] replace those before.',
    ),
  ];
  for (const { header, text, keys } of TABLE_WORDS) {
    lines.push('', ...comment(text));
    if (header !== null) lines.push(`#${header}`);
    for (const [key, words] of Object.entries(keys)) lines.push('', ...keyLines(key, words));
  }
  return `${lines.join('\n')}\n`;
}

function keyLines(key: string, { text, default: standard, example }: KeyWords): string[] {
  const note = standard === undefined ? ' (An example.)' : '';
  return [...comment(`${text}${note}`), `#${key} = ${standard ?? example ?? '""'}`];
}

function comment(text: string): string[] {
  const lines: string[] = [];
  let line = '#';
  for (const word of text.split(' ')) {
    if (line.length + word.length + 1 > WIDTH) {
      lines.push(line);
      line = '#';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
