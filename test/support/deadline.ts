// Waiting that always ends: every instrument's promise is settled by what it waits for, or by a clear error.
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * How long a test waits for what has to come, before it says that it never did. It bounds a failing test, and is no claim of
 * how soon something comes: a machine may be busy.
 */
export const PATIENCE_MS = 120_000;

/** Asks every `everyMs` until `condition` holds; rejects with `what()` when it never does. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  what: () => string,
  everyMs = 20,
): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !(await condition()); await sleep(everyMs)) {
    if (performance.now() > end) throw new Error(`never: ${what()}`);
  }
}

/** Settles as `promise` does, or rejects with `what()` when that takes longer than `timeoutMs`. */
export async function within<T>(promise: Promise<T>, timeoutMs: number, what: () => string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what()} (waited ${timeoutMs} ms)`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Something that happens now and then, and that several may wait for. */
export class Signal {
  #waiting: (() => void)[] = [];

  /** Wakes all who wait. */
  raise(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves as soon as `condition` gives something else than null; asks again whenever the signal is raised. */
  async until<T>(condition: () => T | null, timeoutMs: number, what: () => string): Promise<T> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const next = this.next();
      const value = condition();
      if (value !== null) return value;
      await within(next, Math.max(0, end - performance.now()), what);
    }
  }
}
