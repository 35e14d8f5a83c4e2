/** The commands of a fenced block, each with the output that the page shows of it. */
import type { Block } from './page.js';

export interface ShownCommand {
  readonly line: number;
  /** As it is typed: several lines where it has a here-document or a line that goes on. */
  readonly text: string;
  /** What the page shows that it prints; null where the page shows nothing. */
  readonly output: string | null;
}

/** Of an `sh` or `console` block, in order. In a `console` block commands begin with `$ `, and the rest is output. */
export function commandsOf(block: Block): ShownCommand[] {
  const lines = block.text.split('\n');
  const first = block.line + 1;
  return block.language === 'console' ? typed(lines, first) : written(lines, first);
}

function typed(lines: readonly string[], first: number): ShownCommand[] {
  const commands: { line: number; text: string; output: string[] }[] = [];
  for (const [index, line] of lines.entries()) {
    const last = commands.at(-1);
    if (line.startsWith('$ ')) commands.push({ line: first + index, text: line.slice(2), output: [] });
    else if (last === undefined) throw new Error(`${line}: output before the first command`);
    else if (last.output.length === 0 && last.text.endsWith('\\')) last.text += `\n${line}`;
    else last.output.push(line);
  }
  return commands.map(({ output, ...one }) => ({
    ...one,
    output: output.length === 0 ? null : output.join('\n'),
  }));
}

function written(lines: readonly string[], first: number): ShownCommand[] {
  const commands: ShownCommand[] = [];
  for (let index = 0; index < lines.length; index++) {
    const line = first + index;
    let text = lines[index] ?? '';
    if (/^\s*(#|$)/.test(text)) continue;
    while (text.endsWith('\\') && index + 1 < lines.length) text += `\n${lines[++index] ?? ''}`;
    const [, end] = /<<-?'?(\w+)'?/.exec(text) ?? [];
    while (end !== undefined && lines[index] !== end && index + 1 < lines.length)
      text += `\n${lines[++index] ?? ''}`;
    commands.push({ line, text, output: null });
  }
  return commands;
}

/** A command that goes on until its reader has seen enough. */
export function goesOn(command: string): boolean {
  return /--follow\b|\bcurl .*-N\b/.test(command);
}
