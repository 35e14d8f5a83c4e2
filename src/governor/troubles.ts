import type { Emit } from '../ops/event-log.js';

/** The things that the governor cannot do: each is told once by an event, and the first one stays in the policy's view. */
export class Troubles {
  readonly #emit: Emit;
  readonly #told = new Set<string>();
  #first: string | null = null;

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  get first(): string | null {
    return this.#first;
  }

  /** `about` names the trouble; of two with the same name the first is told. */
  tell(about: string, message: string): void {
    this.#first ??= message;
    if (this.#told.has(about)) return;
    this.#told.add(about);
    this.#emit('policy-degraded', message);
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
