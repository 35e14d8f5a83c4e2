/**
 * Sentences with which a program refuses something: what is wrong, and behind it the next step. The compiler sees to it that
 * each of them has one.
 */

/** The verbs that a next step begins with. */
export const STEP_VERBS = [
  ...([
    'add',
    'allow',
    'ask',
    'check',
    'choose',
    'connect',
    'create',
    'do',
    'end',
    'follow',
    'free',
  ] as const),
  ...(['give', 'join', 'keep', 'let', 'load', 'look', 'lower', 'make', 'mend', 'move', 'raise'] as const),
  ...(['reload', 'restart', 'run', 'save', 'see', 'send', 'set', 'start', 'stop', 'take', 'try'] as const),
  ...(['update', 'use', 'write'] as const),
] as const;

/** What to do, which begins with its verb. */
export type Instruction = `${(typeof STEP_VERBS)[number]} ${string}`;

/** An instruction, with a reason before it or without one, or a question whose answer is the next step. */
export type NextStep =
  | Instruction
  | `${string}${', ' | '; '}${Instruction}`
  | `did you mean ${string}?`
  | `is balloond ${string}?`;

declare const mark: unique symbol;
/** A sentence that ends with a next step. */
export type RefusalText = string & { readonly [mark]: true };

/** `what` is wrong, so `step` is next. */
export function refusal(what: string, step: NextStep, between: ': ' | '; ' = ': '): RefusalText {
  return `${what}${between}${step}` as RefusalText;
}

/** A refusal behind words that say what it is about, such as a place in a file. */
export function refusalOf(subject: string, text: RefusalText): RefusalText {
  return `${subject} ${text}` as RefusalText;
}

/** Refusals with a line for each. */
export function refusalLines(lines: readonly RefusalText[]): RefusalText {
  return lines.join('\n') as RefusalText;
}

/** A sentence of another process, or one that was put together elsewhere: whoever wrote it saw to its next step. */
export function passedOn(text: string): RefusalText {
  return text as RefusalText;
}

/** The next step of such a sentence. */
export function passedOnStep(text: string): NextStep {
  return text as NextStep;
}

/** An error whose message an operator reads as it is. Whatever is refused to somebody is thrown as one of these. */
export abstract class RefusingError extends Error {
  declare readonly message: RefusalText;

  // It takes fewer texts than that of Error.
  public constructor(text: RefusalText, options?: ErrorOptions) {
    super(text, options);
  }
}
