/** The exit codes of balloonctl, which scripts rely on, and the errors behind them. */
import { RefusingError } from '../../../protocol/control/refusal.js';

export const EXIT = { done: 0, refused: 1, usage: 2, unreachable: 3, timedOut: 4 } as const;

/** What each of them means. */
export const EXIT_WORDS: Readonly<Record<(typeof EXIT)[keyof typeof EXIT], string>> = {
  0: 'done',
  1: 'refused or failed; a line on stderr says why and what to do',
  2: 'bad usage',
  3: 'the daemon is unreachable',
  4: '`wait` or `--wait` timed out; the target stands',
};

/** The command line makes no sense; the message is one line. The next step is the help, which balloonctl adds. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** `wait` or `--wait` ran out of time; the message says how far it got. */
export class WaitTimeoutError extends RefusingError {
  override readonly name = 'WaitTimeoutError';
}

/** `doctor` found something to mend; the message says how much. */
export class FoundError extends RefusingError {
  override readonly name = 'FoundError';
}

/** By name rather than by class, so that reporting an error loads no module that raises others. */
export function exitCode(error: unknown): number {
  switch (error instanceof Error ? error.name : '') {
    case 'UsageError':
      return EXIT.usage;
    case 'UnreachableError':
      return EXIT.unreachable;
    case 'WaitTimeoutError':
      return EXIT.timedOut;
    default:
      return EXIT.refused;
  }
}
