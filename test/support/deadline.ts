// Waiting that always ends: every instrument's promise is settled by what it waits for, or by a clear error.

/** How long instruments wait for something that should come at once. */
export const DEFAULT_TIMEOUT_MS = 20_000;

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
    const end = Date.now() + timeoutMs;
    for (;;) {
      const next = this.next();
      const value = condition();
      if (value !== null) return value;
      await within(next, Math.max(0, end - Date.now()), what);
    }
  }
}
