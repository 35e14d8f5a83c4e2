/** What a terminal in raw mode sends, as keys. */

export type Key =
  | 'up'
  | 'down'
  | 'page-up'
  | 'page-down'
  | 'home'
  | 'end'
  | 'enter'
  | 'escape'
  | 'backspace'
  | 'interrupt'
  | 'suspend'
  | 'erase-line'
  | { readonly typed: string };

/** What follows `ESC [` or `ESC O`. */
const SEQUENCES: Readonly<Record<string, Key>> = {
  A: 'up',
  B: 'down',
  H: 'home',
  F: 'end',
  '1~': 'home',
  '4~': 'end',
  '5~': 'page-up',
  '6~': 'page-down',
  '7~': 'home',
  '8~': 'end',
};
const CONTROLS: Readonly<Record<string, Key>> = {
  '\r': 'enter',
  '\n': 'enter',
  '\x03': 'interrupt',
  '\x08': 'backspace',
  '\x7f': 'backspace',
  '\x15': 'erase-line',
  '\x1a': 'suspend',
};
const SEQUENCE = /^\x1b(?:\[([\d;?]*[\x40-\x7e])|O([\x40-\x7e]))/;
/** A sequence of which the rest has yet to come. */
const BEGUN = /^\x1b(?:\[[\d;?]*|O)?$/;

export class KeyDecoder {
  #rest = '';

  /** Whether Escape, or the begin of something longer, waits for what comes next: flush() says that nothing does. */
  get waits(): boolean {
    return this.#rest !== '';
  }

  push(text: string): Key[] {
    const keys: Key[] = [];
    let rest = this.#rest + text;
    this.#rest = '';
    while (rest !== '') {
      if (rest.startsWith('\x1b')) {
        if (BEGUN.test(rest)) {
          this.#rest = rest;
          break;
        }
        const [whole = '\x1b', bracket, letter] = SEQUENCE.exec(rest) ?? [];
        const key = whole === '\x1b' ? 'escape' : SEQUENCES[bracket ?? letter ?? ''];
        if (key !== undefined) keys.push(key);
        rest = rest.slice(whole.length);
        continue;
      }
      const [letter = ''] = rest;
      const control = CONTROLS[letter];
      if (control !== undefined) keys.push(control);
      else if (letter >= ' ') keys.push({ typed: letter });
      rest = rest.slice(letter.length);
    }
    return keys;
  }

  flush(): Key[] {
    const waited = this.#rest;
    this.#rest = '';
    return waited === '' ? [] : ['escape'];
  }
}
