import type { Dice } from './dice.js';

/** Something that is tried with whatever the dice say. */
export interface Fuzzer {
  readonly name: string;
  /**
   * One case, which depends on nothing but the dice. Throws when something does not hold that must; what escapes as
   * an uncaught exception, ends the process, or takes very long, is a finding too.
   */
  run(dice: Dice): Promise<void>;
  close(): Promise<void>;
}

/** Lets everything work that has something to do now. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await turn();
}

/** Lets everything work until `condition` holds. */
export async function until(condition: () => boolean, what: string, timeoutMs = 10_000): Promise<void> {
  for (const end = performance.now() + timeoutMs; !condition(); await turn()) {
    if (performance.now() > end) throw new Error(`never: ${what}`);
  }
}
