import { existsSync, readFileSync, writeFileSync } from 'node:fs';

/** A setting of the host that could not be made; the message says which. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
}

/** Settings of the host for the time of a measurement: they go back also when this process is interrupted. */
export class HostSettings {
  readonly #undo: (() => void)[] = [];
  readonly #restore = (): void => this.restore();

  constructor() {
    process.once('exit', this.#restore);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, exit);
  }

  /** Throws RefusedError unless the file takes the value. */
  set(path: string, value: string): void {
    const before = read(path);
    if (before === value) return;
    write(path, value);
    this.#undo.push(() => write(path, before));
    if (read(path) !== value) throw new RefusedError(`${path} stays ${before}`);
  }

  /** Others may add to the same number meanwhile, and take back what they added. Throws RefusedError. */
  add(path: string, count: number): void {
    const before = Number(read(path));
    write(path, String(before + count));
    const added = Number(read(path)) - before;
    this.#undo.push(() => write(path, String(Number(read(path)) - added)));
    if (added < count) throw new RefusedError(`${path} grew by only ${added} of ${count}`);
  }

  restore(): void {
    for (const undo of this.#undo.splice(0).reverse()) undo();
    process.off('exit', this.#restore);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, exit);
  }
}

/** A file's value, or of a choice ("always [madvise] never") the one in brackets. */
function read(path: string): string {
  if (!existsSync(path)) throw new RefusedError(`${path} does not exist`);
  const text = readFileSync(path, 'latin1').trim();
  return /\[(\w+)\]/.exec(text)?.[1] ?? text;
}

function write(path: string, value: string): void {
  try {
    writeFileSync(path, value);
  } catch (error) {
    throw new RefusedError(`${path} cannot be set: ${(error as NodeJS.ErrnoException).code ?? 'error'}`);
  }
}

function exit(): void {
  process.exit(130);
}
