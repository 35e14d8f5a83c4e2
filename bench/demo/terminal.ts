/** Lines that stay and one line of progress below them, which replaces itself where the terminal can do that. */
import type { WriteStream } from 'node:tty';

export type Colour = 'bold' | 'dim' | 'blue' | 'orange' | 'orangeOnBlue';

export type Paint = (colour: Colour, text: string) => string;

const CODES: Record<Colour, string> = {
  bold: '1',
  dim: '2',
  blue: '38;5;67',
  orange: '38;5;214',
  orangeOnBlue: '38;5;220;48;5;67',
};

const RESET = '\x1b[0m';
const CLEAR_LINE = '\r\x1b[K';
/** Without a terminal every progress line stays: not too many of them. */
const PLAIN_PROGRESS_MS = 2000;

export const plain: Paint = (_colour, text) => text;

export const coloured: Paint = (colour, text) => `\x1b[${CODES[colour]}m${text}${RESET}`;

export class Terminal {
  readonly paint: Paint;
  readonly #stream: WriteStream;
  readonly #replaces: boolean;
  #hasProgress = false;
  #lastProgressMs = -Infinity;

  constructor(stream: WriteStream, environment: Readonly<Record<string, string | undefined>>) {
    this.#stream = stream;
    this.#replaces = stream.isTTY && environment['TERM'] !== 'dumb';
    this.paint = this.#replaces && !environment['NO_COLOR'] ? coloured : plain;
  }

  print(text: string): void {
    this.#stream.write(`${this.#clear()}${text}\n`);
    // What comes next is news again.
    this.#lastProgressMs = -Infinity;
  }

  progress(text: string): void {
    if (this.#replaces) {
      this.#stream.write(this.#clear() + text);
      this.#hasProgress = true;
    } else if (performance.now() - this.#lastProgressMs >= PLAIN_PROGRESS_MS) {
      this.#stream.write(`${text}\n`);
      this.#lastProgressMs = performance.now();
    }
  }

  #clear(): string {
    const had = this.#hasProgress;
    this.#hasProgress = false;
    return had ? CLEAR_LINE : '';
  }
}
