import { existsSync, readFileSync, writeFileSync } from 'node:fs';

/** A setting of the host that could not be made; the message says which. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
}

/** Settings of the host for the time of a measurement: they go back also when this process is interrupted. */
export class HostSettings {
  readonly #before: [path: string, value: string][] = [];
  readonly #restore = (): void => this.restore();

  constructor() {
    process.once('exit', this.#restore);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, exit);
  }

  /** Throws RefusedError unless the file takes the value and keeps it. */
  set(path: string, value: string): void {
    if (!existsSync(path)) throw new RefusedError(`${path} does not exist`);
    const before = selected(path);
    if (before === value) return;
    try {
      writeFileSync(path, value);
    } catch (error) {
      throw new RefusedError(`${path} cannot be set: ${(error as NodeJS.ErrnoException).code ?? 'error'}`);
    }
    this.#before.push([path, before]);
    if (selected(path) !== value) throw new RefusedError(`${path} is ${selected(path)}, not ${value}`);
  }

  restore(): void {
    for (const [path, value] of this.#before.splice(0).reverse()) writeFileSync(path, value);
    process.off('exit', this.#restore);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, exit);
  }
}

/** A file's value, or of a choice ("always [madvise] never") the one in brackets. */
export function selected(path: string): string {
  const text = readFileSync(path, 'latin1').trim();
  return /\[(\w+)\]/.exec(text)?.[1] ?? text;
}

function exit(): void {
  process.exit(130);
}
