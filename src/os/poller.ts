import { checked, SystemError } from './errors.js';
import { native, type WatchHandle } from './native.js';

export const READABLE = 1;
export const WRITABLE = 2;
/** POLLPRI: what pressure stall triggers say. */
export const PRIORITIZED = 8;

/**
 * Watches an fd on the event loop, by its level or, with `edges`, each time that it becomes ready anew and once more after
 * setEvents() (epoll(7)). It does not own the fd; close() before the fd is closed. After an error (such as ECONNRESET from a
 * socket) nothing more is called back until setEvents().
 */
export class Poller {
  readonly #handle: WatchHandle;
  #open = true;

  constructor(
    fd: number,
    events: number,
    onReady: (events: number, error: SystemError | null) => void,
    edges = false,
  ) {
    this.#handle = watch(fd, events, edges ? 'edges' : 'level', (ready, status) => {
      if (this.#open) onReady(ready, status < 0 ? new SystemError(-status, 'poll') : null);
    });
  }

  /** 0 to pause. */
  setEvents(events: number): void {
    if (this.#open) checked(native.setEvents(this.#handle, events), 'poll');
  }

  /** Nothing is called back after this. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    native.unwatch(this.#handle);
  }
}

/** How an fd is watched. A counter is an eventfd, which is read at its first event alone, and by its edges from then on. */
const MODES = { level: 0, edges: 1, counter: 2 };

export function watch(
  fd: number,
  events: number,
  mode: keyof typeof MODES,
  callback: (events: number, status: number) => void,
): WatchHandle {
  const handle = native.watch(fd, events, MODES[mode], callback);
  if (typeof handle === 'number') throw new SystemError(-handle, 'poll', `fd ${fd}`);
  return handle;
}
