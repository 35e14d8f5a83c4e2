/** Where a command prints: lines for people or documents for programs, never both. */
import type { BalloonView, VmView } from '../../../protocol/control/schema.js';
import { formatSize } from '../../../protocol/control/size.js';

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow';

export interface Output {
  /** `--json`: print documents only. */
  readonly json: boolean;
  /** Columns of the terminal; null when this is none. */
  readonly columns: number | null;
  /** Prints text with a newline at its end. */
  print(text: string): void;
  /** Prints one JSON document on one line. */
  document(value: unknown): void;
  /** The text in this style, or as it is where colours are off. */
  paint(style: Style, text: string): string;
}

export const STATE_STYLES: Record<VmView['state'], Style> = {
  connected: 'dim',
  running: 'green',
  stopped: 'yellow',
};

const CODES: Record<Style, [on: number, off: number]> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
};

/** Colours only on a terminal that has them and unless NO_COLOR is set (no-color.org). */
export function openOutput(
  stream: { write(text: string): unknown; isTTY?: boolean; columns?: number | undefined },
  environment: Readonly<Record<string, string | undefined>>,
  json: boolean,
): Output {
  const onTerminal = stream.isTTY === true;
  const colours = onTerminal && !environment['NO_COLOR'] && environment['TERM'] !== 'dumb';
  return {
    json,
    columns: onTerminal ? (stream.columns ?? 80) : null,
    print: (text) => void stream.write(`${text}\n`),
    document: (value) => void stream.write(`${JSON.stringify(value)}\n`),
    paint: (style, text) => {
      const [on, off] = CODES[style];
      return colours ? `\x1b[${on}m${text}\x1b[${off}m` : text;
    },
  };
}

/** The size of a balloon, as far as it is known. */
export function actualWords({
  actualBytes,
  actualUnknown,
}: Pick<BalloonView, 'actualBytes' | 'actualUnknown'>): string {
  return actualUnknown ? 'unknown' : formatSize(actualBytes);
}

/** What it has of its RAM at most: pages of a page cache balloon are its own again whenever it wants them, but not now. */
export function guestBytes({ ramBytes, balloon, cache }: VmView): number {
  return Math.max(0, ramBytes - balloon.actualBytes - (cache?.actualBytes ?? 0));
}

/** The same in words, as far as it is known. */
export function guestWords(vm: VmView): string {
  return vm.balloon.actualUnknown ? 'unknown' : formatSize(guestBytes(vm));
}

/**
 * Names and reasons come from others: without control characters, halves of a pair, ends of a line, and marks that turn the
 * direction of what follows they cannot drive the terminal.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '?');
}
