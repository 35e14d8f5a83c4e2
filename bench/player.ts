import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

/** What may be asked of a player, and what it answers; as plain data, which goes over a pipe. */
export type Part = Record<string, { ask: unknown; answer: unknown }>;

interface Question {
  what: string;
  ask: unknown;
}

interface Answer {
  answer?: unknown;
  error?: string;
}

/** A program of this folder as a process of its own, which ends with this one. It is asked one thing at a time. */
export class Player<P extends Part = Part> {
  readonly #child: ChildProcess;
  #waiter: { resolve: (answer: unknown) => void; reject: (error: Error) => void } | null = null;

  /** `fds` are the program's from 4 on. */
  constructor(program: string, args: readonly string[] = [], fds: readonly number[] = []) {
    this.#child = fork(join(import.meta.dirname, program), args, {
      execPath: 'setpriv',
      execArgv: ['--pdeathsig', 'KILL', process.execPath],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...fds],
    });
    this.#child.on('message', ({ answer, error }: Answer) => {
      if (error === undefined) this.#waiter?.resolve(answer);
      else this.#waiter?.reject(new Error(error));
    });
    this.#child.on('exit', (code) => this.#waiter?.reject(new Error(`${program} ended with ${code}`)));
  }

  ask<K extends keyof P & string>(what: K, ask: P[K]['ask']): Promise<P[K]['answer']> {
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
      this.#child.send({ what, ask } satisfies Question);
    });
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}

/** The player's side. */
export function play<P extends Part>(handlers: {
  [K in keyof P]: (ask: P[K]['ask']) => P[K]['answer'] | Promise<P[K]['answer']>;
}): void {
  process.on('message', ({ what, ask }: Question) => {
    const reply = (answer: Answer): void => void process.send?.(answer);
    Promise.resolve()
      .then(() => handlers[what]?.(ask))
      .then((answer) => reply({ answer }))
      .catch((error: unknown) =>
        reply({ error: error instanceof Error ? (error.stack ?? '') : String(error) }),
      );
  });
}
