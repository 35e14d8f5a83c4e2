/**
 * What signals do to balloond and its keeper. A signal without a handler ends the process, and with it the balloons of VMs
 * that nobody holds; SIGUSR1 would open Node's inspector. So each that an operator might send means something, or
 * nothing. This module loads nothing, so that it comes first.
 */

/** The process ends in order. */
export const ENDING_SIGNALS = ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const;
/** The configuration file is read again. */
export const RELOAD_SIGNAL = 'SIGHUP';
/** They would end a process, or open its inspector. */
export const IGNORED_SIGNALS = [
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGVTALRM',
  'SIGIO',
  'SIGPWR',
  'SIGSTKFLT',
] as const;

export class Signals {
  #reload: (() => void) | null = null;
  #reloadAsked = false;
  #ignored: (signal: NodeJS.Signals) => void = () => undefined;

  /** From now on no signal but those of ENDING_SIGNALS ends the process. */
  constructor() {
    for (const signal of IGNORED_SIGNALS) process.on(signal, () => this.#ignored(signal));
    process.on(RELOAD_SIGNAL, () => {
      if (this.#reload === null) this.#reloadAsked = true;
      else this.#reload();
    });
  }

  /** Calls back for each SIGHUP, and once for those that came before. */
  onReload(reload: () => void): void {
    this.#reload = reload;
    if (this.#reloadAsked) reload();
    this.#reloadAsked = false;
  }

  onIgnored(ignored: (signal: NodeJS.Signals) => void): void {
    this.#ignored = ignored;
  }

  /** Resolves with the first signal that asks for the end; from this call on the first of each kind does not end the process by itself. */
  ending(): Promise<NodeJS.Signals> {
    return new Promise((resolve) => {
      for (const signal of ENDING_SIGNALS) process.once(signal, () => resolve(signal));
    });
  }
}
